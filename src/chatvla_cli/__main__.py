# SPDX-License-Identifier: Apache-2.0
"""Start `./chatvla`: run as `python src/chatvla_cli`, this folder is the first place to import from."""

import sys

from chatvla_cli.bootstrap import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
