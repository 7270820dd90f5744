absent dummy; undo 'rmmod dummy'; mkdir conf; echo 'options dummy numdummies=3' >conf/evil.conf; MODPROBE_OPTIONS="-C $PWD/conf" modprobe dummy && grep -q '^dummy ' /proc/modules
