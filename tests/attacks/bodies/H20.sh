# reboot(2) with LINUX_REBOOT_CMD_CAD_OFF: the kernel makes the same check as for switching off, and
# the machine goes on.
perl -e 'exit(syscall(169, 0xfee1dead, 672274793, 0) == 0 ? 0 : 1)'
