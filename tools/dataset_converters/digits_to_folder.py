"""Handwritten digits as one folder for each class: ``mmsnn digits-folder``, as a script."""

from mmsnn_cli.digits_to_folder import main

if __name__ == '__main__':
    main()
