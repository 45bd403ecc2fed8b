-- The role that otel-queue reads with; its password is a secret of compose.yaml.
\set password `cat /run/secrets/role-password`
CREATE ROLE otel_queue LOGIN PASSWORD :'password';
