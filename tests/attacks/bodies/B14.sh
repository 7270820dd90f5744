mkdir -p security; echo 'none [integrity] confidentiality' >security/lockdown; mount --bind security /sys/kernel/security && undo 'umount -l /sys/kernel/security'
host test ! -e /sys/kernel/security/lsm
