undo 'systemctl stop b56.socket; rm -f /run/udev/rules.d/99-b56.rules'
timeout 9 systemd-run -q --unit=b56 --socket-property="ListenFIFO=$PWD/fifo" --socket-property=Symlinks=/run/udev/rules.d/99-b56.rules true; [ -h /run/udev/rules.d/99-b56.rules ]
