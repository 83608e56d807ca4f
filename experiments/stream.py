"""A live RTSP stream watched, its server stopped in the middle and started again.

Command:  python experiments/stream.py (writes results/stream.json)
Duration: a minute and a half
Data:     a moving ball of GStreamer's test source, 256 px, five frames a second

Needs a system Python with GStreamer's RTSP server (Debian: gir1.2-gst-rtsp-server-1.0, python3-gi
and the plugins good, bad and ugly). No camera is involved: a device such as /dev/video0 was never
at hand."""

import signal
import subprocess
import sys
import time
from collections import Counter

from common import RESULTS, about, fresh

from hybridad.inference.rows import read_scores
from hybridad.runs import write_json

CODE = 'import sys; from hybridad.cli import hybridad; sys.exit(hybridad())'
ADDRESS = 'rtsp://127.0.0.1:8554/line'
SERVER = """
import gi
gi.require_version('Gst', '1.0')
gi.require_version('GstRtspServer', '1.0')
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_service('8554')
factory.set_shared(True)
factory.set_launch('( videotestsrc is-live=true pattern=ball'
    ' ! video/x-raw,width=256,height=256,framerate=5/1'
    ' ! x264enc tune=zerolatency key-int-max=5 ! rtph264pay name=pay0 pt=96 )')
server.get_mount_points().add_factory('/line', factory)
server.attach(None)
GLib.MainLoop().run()
"""


def serve():
    server = subprocess.Popen(['/usr/bin/python3', '-c', SERVER])
    time.sleep(3)
    return server


def main():
    out, server = fresh('stream'), serve()
    command = [sys.executable, '-c', CODE, 'watch', ADDRESS, '--out', str(out), '--fps', '1']
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(35)
    server.terminate()
    server.wait()
    time.sleep(10)
    server = serve()
    time.sleep(30)
    watch.send_signal(signal.SIGINT)
    said, _ = watch.communicate()
    server.terminate()
    rows = list(read_scores(out))
    told = [t for t in said.splitlines() if 'frames' in t or 'is back' in t or 'latency' in t]
    found = dict(
        rows=len(rows),
        decisions=Counter(r['decision'] for r in rows),
        frames_twice=len(rows) - len({r['image'] for r in rows}),
        told=told,
        exit_code=watch.returncode,
    )
    write_json(RESULTS / 'stream.json', about('python experiments/stream.py', None) | found)


if __name__ == '__main__':
    main()
