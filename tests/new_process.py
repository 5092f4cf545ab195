"""New processes in which nobody has imported skqfair: forked, so that torch is imported once for all."""

import json
import subprocess
import sys

_SERVER = """
import json, os, sys, traceback
import joblib, numpy, pandas, skops.io, torch
torch.set_num_threads(1)
assert "skqfair" not in sys.modules
for line in sys.stdin:
    code, folder = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.chdir(folder)
            said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1), os.dup2(said, 2)
            exec(code, {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class NewProcesses:
    """Runs code in a folder, each in a process of its own."""

    def __init__(self):
        self._server = None

    def run(self, code, folder, status=0):
        """Return what the process said; raise with it where its status at the end is another."""
        if self._server is None:
            command = [sys.executable, "-c", _SERVER]
            self._server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        print(json.dumps([code, str(folder)]), file=self._server.stdin, flush=True)
        found, said = int(self._server.stdout.readline()), (folder / "said").read_text()
        assert found == status, (found, said)
        return said

    def close(self):
        """End the process that is forked."""
        if self._server is not None:
            self._server.communicate()
