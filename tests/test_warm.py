"""What is forked instead of started behaves as if it had been started: arguments, environment, folder, output, end, children."""

import json
import os
import sys

import pytest
import warm

pytestmark = pytest.mark.slow

SHOW = """
import json, os, sys
print(json.dumps([sys.argv, os.environ.get("MINE"), os.environ.get("HOME"), os.getcwd(), __name__, sys.stdin.read()]))
print("complaint", file=sys.stderr)
"""


def test_arguments_environment_folder_and_input_are_its_own(tmp_path):
    (tmp_path / "script.py").write_text(SHOW)
    for arguments, name in ((["-c", SHOW, "a"], "-c"), ([str(tmp_path / "script.py"), "a"], str(tmp_path / "script.py"))):
        done = warm.run(arguments, env={"MINE": "yes"}, cwd=tmp_path, input="typed")
        assert json.loads(done.stdout) == [[name, "a"], "yes", None, str(tmp_path), "__main__", "typed"]
        assert (done.returncode, done.stderr) == (0, "complaint\n")
    done = warm.run(["-m", "script", "a"], env={"MINE": "yes"}, cwd=tmp_path)
    assert json.loads(done.stdout)[0][1:] == ["a"]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [("", 0, ""), ("raise SystemExit", 0, ""), ("raise SystemExit(3)", 3, ""), ("raise SystemExit('why')", 1, "why"),
     ("1 / 0", 1, "ZeroDivisionError"), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, "")],
)  # fmt: skip
def test_it_ends_as_python_ends(code, status, said):
    done = warm.run(["-c", code], env=os.environ)
    assert done.returncode == status
    assert said in done.stderr and bool(said) == bool(done.stderr)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    done = warm.run(["-c", ""], env=os.environ, cwd=tmp_path / "gone")
    assert done.returncode == 1
    assert f"No such file or directory: '{tmp_path / 'gone'}'" in done.stderr


def test_one_does_not_see_what_another_left():
    warm.run(["-c", "import torch; torch.left = 1"], env=os.environ)
    assert warm.run(["-c", "import torch; print(hasattr(torch, 'left'))"], env=os.environ).stdout == "False\n"


def test_nothing_of_the_course_is_imported_before_it_is_asked_for():
    """Else a variable of the environment could be read too early, or a change of a test's own be seen by the next."""
    code = "import sys; print([n for n in sys.modules if n.split('.')[0] in ('vdr_helpers', 'tiny_vdr', 'tools', 'benchmarks', 'cells')])"
    assert warm.run(["-c", code], env=os.environ).stdout == "[]\n"


def test_children_are_forked_too_and_other_programs_are_started():
    code = f"""
import subprocess, sys
done = subprocess.run([sys.executable, "-c", "import sys; print('torch' in sys.modules); sys.exit(5)"], capture_output=True, text=True)
print(done.stdout, done.returncode, subprocess.run(["true"]).returncode)
assert sys.executable == {sys.executable!r}
"""
    done = warm.run(["-c", code], env=os.environ, children=True)
    assert done.stdout == "True\n 5 0\n", done.stderr
