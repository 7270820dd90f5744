need /dev/kmsg; echo 'adamant: verified: d117' >/dev/kmsg
