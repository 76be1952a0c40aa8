"The former address of the command: `python -m ddpm_lit.cli`."

import sys

from ddpm_lit.command.main import main

if __name__ == "__main__":
    sys.exit(main())
