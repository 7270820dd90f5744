$poke dm remove "$dm"
