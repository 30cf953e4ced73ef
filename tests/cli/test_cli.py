"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def call(*arguments: str, cwd: Path = ROOT, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    start = command or (sys.executable, str(ROOT / "train.py"))
    return subprocess.run(
        [*start, *arguments], cwd=cwd, env=ENV, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.latent_dmi=16"], "there is no key 'model.latent_dmi'; did you mean 'model.latent_dim'?"),
        (["latent_dim=16"], "there is no key 'latent_dim'; did you mean 'model.latent_dim'?"),
        (["data=mnsit"], "choose one of arrays, digits, emnist, "),
        (["data=mnsit"], "did you mean 'mnist'?"),
        (["experimnet=keras_conv"], "did you mean 'experiment'?"),
        (["model/likelihod=gaussian"], "did you mean 'model/likelihood'?"),
        (["model.latent_dim=["], "model.latent_dim=[ cannot be read: brackets must close"),
        (["digits"], "digits is no override; write KEY=VALUE or GROUP=OPTION"),
        (
            ["method=ladder_vae", "objective=factor_vae"],
            "method=ladder_vae chooses the group objective/schedule, which does not go with objective=factor_vae",
        ),
        (
            ["objective=factor_vae", "objective/schedule=linear"],
            "objective/schedule is a group that does not go with objective=factor_vae; leave one of the two out",
        ),
        (["data=digits", "model.latent_dim=abc"], "model.latent_dim must be a whole number, but is 'abc'"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_directory(tmp_path, arguments, message):
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_pattern_with_brackets_is_to_be_quoted(tmp_path):
    evaluate = (sys.executable, str(ROOT / "evaluate.py"))
    done = call("run=a/[bc]*", cwd=tmp_path, command=evaluate)
    assert done.returncode == 1
    assert "'run=\"a/[bc]*\"'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    done = call('run="a/[bc]*"', cwd=tmp_path, command=evaluate)
    assert "run=a/[bc]* names no run directory" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-sc", "install=bash"]])
def test_help_answers_without_heavy_imports(arguments):
    code = (
        f"import sys; sys.argv = ['train.py', *{arguments!r}]\n"
        "from vaelab.train import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning', 'sklearn', 'matplotlib'} & set(sys.modules), 'heavy'\n"
    )
    done = call(command=(sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 500


def test_shell_completion_knows_options_and_keys():
    for words, expected in (("model/likelihood=", "model/likelihood=gaussian"), ("model.lat", "model.latent_dim=")):
        line = f"python train.py {words}"
        done = subprocess.run(
            [sys.executable, "train.py", "-sc", "query=bash"],
            cwd=ROOT,
            env={**ENV, "COMP_LINE": line, "COMP_POINT": str(len(line))},
            capture_output=True,
            text=True,
            check=True,
        )
        assert expected in done.stdout.split()


@pytest.mark.parametrize("way", ["module", "console script"])
def test_other_ways_to_start_work_from_any_directory(tmp_path, way):
    script = Path(sys.executable).with_name("vaelab-train")
    command = (sys.executable, "-m", "vaelab.train") if way == "module" else (str(script),)
    arguments = ("data=digits", "trainer.max_epochs=1", "callbacks=quiet", "hydra.run.dir=run")
    done = call(*arguments, cwd=tmp_path, command=command)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/metrics.json").read_text())["epochs"] == 1
    assert "vaelab-train resume=run" in done.stdout


def test_a_sweep_ends_in_a_table_and_survives_a_failed_job(tmp_path):
    done = call(
        "-m",
        "model.latent_dim=2,0,8",
        "data=digits",
        "trainer.max_epochs=2",
        "callbacks=quiet",
        "logger=none",
        "hydra.sweep.dir=sweep",
        cwd=tmp_path,
    )
    assert done.returncode == 1  # a job failed
    assert "error: model.latent_dim must be a whole number of at least 1, but is 0" in done.stderr
    rows = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert [row["job"] for row in rows][-1] == "1"
    assert rows[0]["val/elbo"] >= rows[1]["val/elbo"]
    for job in ("0", "2"):
        assert (tmp_path / "sweep" / job / "metrics.json").is_file()
    table = done.stdout[done.stdout.index("3 jobs, best val/elbo first") :]
    assert f"{rows[0]['val/elbo']:.2f}" in table
    assert "failed" in table


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_with_the_conventional_code(tmp_path, signum, code):
    arguments = ["data=digits", "data.batch_size=2", "trainer.max_epochs=500", "callbacks=quiet", "hydra.run.dir=run"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert "continue with: vaelab-train resume=run" in output
    assert "Traceback" not in output


def test_ctrl_c_before_training_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "data=digits", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run").exists():  # Hydra has started the job; torch is being imported
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())
