"""Moving digits before a simulated event camera: ``mmsnn digits-events``, as a script."""

from mmsnn_cli.digits_to_events import main

if __name__ == '__main__':
    main()
