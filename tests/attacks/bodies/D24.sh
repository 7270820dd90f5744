need /dev/port; printf '\000' | dd of=/dev/port bs=1 seek=128 count=1 conv=notrunc 2>&1
