"""What commands show is what was meant, in any terminal, and however they end."""

import os
import signal
import subprocess
import sys
import time

import pytest
from rich.table import Table

from sfumato.campaigns.scans import Geometry
from sfumato.commands import runs
from sfumato.commands.data_tables import campaign_table
from sfumato.commands.ending import exit_code
from sfumato.commands.options import given
from sfumato.commands.progress import ProgressLine
from sfumato.commands.screen import say
from sfumato.config import read_settings
from sfumato.execution.runner import Stopped, Tally
from sfumato.execution.worker import THREAD_VARIABLES
from sfumato.potentials.specs import CONTROLS
from tests import made_runs

NAMES = ["runs[v2]", "[/red]", "[bold]x[/bold]", "a :smile: b", "[link=x]y"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_were_typed(capsys, name):
    say(f"records: {name}")
    table = Table(name, title=name)
    table.add_row(name)
    say(table)
    shown = capsys.readouterr().out
    assert f"records: {name}" in shown
    assert shown.count(name) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_progress_takes_any_name_also_on_a_terminal(monkeypatch, capsys, name):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with ProgressLine(name, "frames") as line:
        line(Tally(total=3))
        line(Tally(total=3, done=1, failed=1, seconds=1.0, last_failure=name))
    line.finish()
    shown = capsys.readouterr().err
    assert f"last failure: {name}" in shown


def test_a_batch_log_gets_lines_with_all_that_is_known(monkeypatch, capsys):
    monkeypatch.setattr("sfumato.commands.progress.LINE_SECONDS", 0.0)
    with ProgressLine("lj", "frames") as line:
        line(Tally(total=100, skipped=20, done=20, failed=3, seconds=10.0, warning="no locks"))
        line(Tally(total=100, skipped=20, done=40, failed=3, seconds=20.0, warning="no locks"))
    assert capsys.readouterr().err.splitlines() == [
        "lj: warning: no locks",
        "lj: 40/100 frames, 3 failed, 2 frames/s, 30 s left",
        "lj: 60/100 frames, 3 failed, 2 frames/s, 20 s left",
    ]


def start(body, **options):
    code = "import sys, time\nfrom sfumato.commands.ending import exit_code\n"
    code += f"from sfumato.commands.screen import say\ndef work():\n{body}\n"
    code += "sys.exit(exit_code(work))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        **({"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )


@pytest.mark.parametrize("how", ["say", "print"])
def test_an_output_that_nobody_reads_ends_a_command_without_a_word(how):
    process = start(f"    for k in range(100_000): {how}(f'line {{k}}')\n    return 0")
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait() == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_an_output_that_cannot_be_written_is_an_error_of_one_line():
    with open("/dev/full", "w") as full:
        process = start("    print('x')\n    return 0", stdout=full)
        errors = process.communicate(timeout=20)[1]
    assert (process.returncode, errors) == (2, "sfumato: standard output: No space left on device\n")


def test_ctrl_c_ends_a_command_with_a_line_and_without_a_traceback():
    process = start("    print('here', flush=True)\n    time.sleep(60)")
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "stopped by SIGINT\n"
    assert process.returncode == 130


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_a_command_after_it_has_cleaned_up(name, tmp_path):
    body = (
        "    from sfumato.files import write_atomically\n"
        f"    with write_atomically({str(tmp_path / 'set.h5')!r}):\n"
        "        print('here', flush=True)\n        time.sleep(60)"
    )
    process = start(body)
    process.stdout.readline()
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=20)[1] == f"stopped by {name}\n"
    assert process.returncode == 128 + getattr(signal, name)
    assert os.listdir(tmp_path) == []


def test_a_signal_that_is_to_be_ignored_stays_so():
    body = (
        "    import os, signal\n    from sfumato.execution.runner import stop_signals\n"
        "    with stop_signals():\n        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n    return 7"
    )
    process = start(body, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 7


def test_a_stopped_run_says_how_to_go_on(capsys):
    def work():
        raise Stopped(signal.SIGTERM)

    assert exit_code(work) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM; the same command continues where it was\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_our_characters_is_no_hindrance(encoding):
    body = (
        "    from rich.table import Table\n    table = Table('FSD in eV/Å ∕ →')\n"
        "    table.add_row('±–')\n    say(table)\n    say('α')\n    print('Å', file=sys.stderr)\n    return 0"
    )
    process = start(body, encoding=encoding, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert "| FSD in eV/" in process.communicate(timeout=20)[0]
    assert process.returncode == 0


def test_exit_codes_pass():
    assert [exit_code(lambda code=code: code) for code in (0, 1, 2)] == [0, 1, 2]


def test_the_demo_computes_small_molecules_with_one_thread_unless_the_user_says_otherwise(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    seen = {}

    def stop(*_):
        seen.update({name: os.environ[name] for name in THREAD_VARIABLES})
        raise KeyError

    monkeypatch.setattr(runs, "_run", stop)
    with pytest.raises(KeyError):
        runs.demo()
    assert seen == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "3"}


def test_the_demo_probes_and_moves_a_real_method_a_trained_model_and_a_broken_one(monkeypatch, tmp_path):
    asked = {}

    def note(protocol, options):
        asked[protocol.name] = read_settings(protocol.settings, **given(options, protocol.settings)), options
        if len(asked) == len(runs.DEMO):
            raise KeyError

    monkeypatch.setattr(runs, "_run", note)
    monkeypatch.setattr(runs, "_one_thread", lambda: None)
    with pytest.raises(KeyError):
        runs.demo(out=tmp_path)
    assert list(asked) == ["bsct", "contract", "probes", "nve"]
    for name in ("probes", "nve"):
        settings, options = asked[name]
        assert settings.size == "dev"
        assert options.model == ["gfn2-xtb", "mindscaip-nano", "lj-direct-noise"]
        assert set(options.model) < set(asked["bsct"][1].model)
        assert options.model[-1] in CONTROLS


@pytest.mark.parametrize(
    ("workers", "effective", "left"), [(1, 1, "2 h 46 min"), (64, 2, "1 h 23 min"), (64, 64, "2 min 36 s")]
)
def test_a_planned_campaign_takes_as_long_as_there_are_cores_for(capsys, workers, effective, left):
    scan = made_runs.diatomic("C-C/a", 1.5)
    say(campaign_table(Geometry((scan,), ()), 1e4 / len(scan), workers, 1, effective))
    shown = capsys.readouterr().out
    assert left in shown
    assert ("cores of this machine, which are enough for 2" in " ".join(shown.split())) == (effective == 2)
