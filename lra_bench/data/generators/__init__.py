"""Making examples: the grammar of ListOps, the snakes of Pathfinder, small sets for trials."""
