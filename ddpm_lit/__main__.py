"`python -m ddpm_lit` is the command `ddpm-lit`."

import sys

from ddpm_lit.command.main import main

if __name__ == "__main__":
    sys.exit(main())
