"""Curves and times from a run's log: ``mmsnn logs``, as a script."""

from mmsnn_cli.mmdet_tools import analyze_logs

if __name__ == '__main__':
    analyze_logs()
