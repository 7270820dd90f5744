$poke userfaultfd
