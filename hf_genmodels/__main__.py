"""`python -m hf_genmodels` is `genmodels`."""

from hf_genmodels.cli import main

if __name__ == "__main__":
    main()
