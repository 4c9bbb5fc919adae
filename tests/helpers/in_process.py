"""Tools run in the tests' own process, which saves the seconds that every import takes."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_in_process(monkeypatch, script, *args, **env) -> None:
    """Run a tool; a refusal is the SystemExit that it ends in.

    Args:
        monkeypatch: Of pytest; it takes back what the tool sets in the environment.
        script: Path below ``tools/``.
        *args: Command line.
        **env: Environment variables.
    """
    # Tools set one of them for good.
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '0')
    for name, value in env.items():
        monkeypatch.setenv(name, str(value))
    path = str(ROOT / 'tools' / script)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
    runpy.run_path(path, run_name='__main__')
