setting /sys/module/apparmor/parameters/mode complain
