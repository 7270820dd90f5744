need /sys/module/firmware_class/parameters/path; setting /sys/module/firmware_class/parameters/path "$PWD"
