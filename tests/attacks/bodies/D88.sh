absent dummy; undo 'rmmod dummy'; $poke uevent /devices/virtual/mem/null mem dummy; became dummy
