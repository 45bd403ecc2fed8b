#!/bin/sh
# Makes the passwords of compose.yaml, once: `sh make-secrets.sh [FOLDER]`, by default secrets/ beside this file.
#
# The folder is its owner's alone. The files in it are readable by all, since a container's user is another one than the
# host's, and Compose mounts them as they are.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir "$folder" # fails where there are secrets already: the database keeps its first password

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
reads=$(password) ledger=$(password) role=$(password)

# The queues, as many have them: whoever is in the network may do all. otel-queue reads (docs/security.md).
cat >"$folder/redis.acl" <<END
user default on nopass ~* &* +@all
user otel-queue on >$reads -@all %R~asynq:* +smembers +scard +llen +lrange +zcard +zcount +zrange +zrangebyscore +get +mget +exists +hget +hvals +multi +exec +time +memory|usage
END
# The ledger: anybody may ask whether it is alive, and no more.
cat >"$folder/ledger.acl" <<END
user default on nopass -@all +ping
user ledger on >$ledger ~oq:* +@all -@dangerous +info
END
cat >"$folder/otel-queue.toml" <<END
[redis]
url = "redis://otel-queue:$reads@redis:6379/0"

[domain]
source = "ledger"
fallback = "postgres" # asked when the ledger cannot be read

[ledger]
url = "redis://ledger:$ledger@ledger:6379/0"

[postgres]
dsn = "postgresql://otel_queue:$role@postgres:5432/convoy"
END
cat >"$folder/demo.toml" <<END
[domain]
source = "ledger"

[ledger]
url = "redis://ledger:$ledger@ledger:6379/0"
END
printf %s "$role" >"$folder/role-password"
password >"$folder/postgres-password"
password >"$folder/grafana-password"
chmod 0444 "$folder"/*
echo "made $folder; Grafana's admin has the password in $folder/grafana-password"
