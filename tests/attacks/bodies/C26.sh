$poke dm suspend "$dm"
