was=$(cat /proc/sys/vm/nr_hugepages); undo "echo $was >/proc/sys/vm/nr_hugepages"; echo 4 >/proc/sys/vm/nr_hugepages 2>/dev/null; $poke memory huge
