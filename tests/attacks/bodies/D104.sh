absent dummy; undo 'rmmod dummy'; echo 'add 11111111-2222-3333-4444-555555555555 MODALIAS=dummy' >/sys/devices/virtual/mem/null/uevent; became dummy
