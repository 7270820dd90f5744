absent dummy; undo 'rmmod dummy; udevadm control --property=MODALIAS='; udevadm control --property=MODALIAS=dummy || exit
echo add >/sys/devices/virtual/mem/null/uevent; udevadm settle --timeout=30 || skip 'systemd-udevd handled no event'; became dummy
