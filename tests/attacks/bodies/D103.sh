absent dummy; undo 'rmmod dummy; rm -f /run/udev/data/c1:3'; printf 'E:MODALIAS=dummy\n' >/run/udev/data/c1:3; echo add >/sys/devices/virtual/mem/null/uevent; became dummy
