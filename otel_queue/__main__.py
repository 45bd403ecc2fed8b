"""`python -m otel_queue` is `otel-queue`."""

import sys

from otel_queue.cli import main

sys.exit(main())
