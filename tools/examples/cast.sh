#!/bin/sh
# The recorded view of docs/controllers.md: asciinema rec --overwrite --cols 150 --rows 36 -c "sh tools/examples/cast.sh" docs/img/controller.cast
at=ipc:///tmp/twin-cast
echo '$ cat ten_lines.py'
cat tools/examples/ten_lines.py
echo '$ twin run scenarios/street.yaml --state '"$at"' --set clock.mode=lockstep --set controllers.wait_for=[one-user] &'
python -m twin run scenarios/street.yaml --duration 0.75 --state "$at" --set clock.mode=lockstep --set 'controllers.wait_for=[one-user]' \
  --no-report --json --out "$(mktemp -d)/run" >/dev/null 2>&1 &
until [ -S /tmp/twin-cast.control ]; do sleep 0.2; done
echo '$ python ten_lines.py '"$at"' &'
echo '$ python rates.py '"$at"
python tools/examples/rates.py "$at" 2>/dev/null &
sleep 2
python tools/examples/ten_lines.py "$at"
wait
