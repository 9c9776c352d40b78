"""What Spark starts for Python functions: pyspark's own daemon, without the server's token in its environment."""

import os
import sys

if __name__ == "__main__":
    os.environ.pop("SPARK_CONNECT_AUTHENTICATE_TOKEN", None)
    # Another program in the same process, so that /proc/PID/environ has lost the token too.
    os.execv(sys.executable, [sys.executable, "-m", "pyspark.daemon", *sys.argv[1:]])  # noqa: S606 -- no shell is wanted
