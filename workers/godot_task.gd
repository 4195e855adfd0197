# A task in Godot 3, with nothing of Python inside: an agent learns its way through an arena, by Q-learning in a table.
#
# Each step is one line of JSON on standard output, as in docs/reference/jsonl-protocol.md; pictures go into the ring that
# is held for us, while somebody watches. The walls are the engine's own bodies, and its physics say what is in the way.
# Rewards are multiples of 1/64, so that sums are exact wherever they are made.
extends Node2D

const MAP = [
	"################",
	"#..............#",
	"#..##....~~....#",
	"#..##....~~..#.#",
	"#........~~..#.#",
	"#..~~........#.#",
	"#..~~..####..#.#",
	"#......#.....#.#",
	"#..##..#..~~...#",
	"#..##..#..~~.G.#",
	"#..............#",
	"################",
]
const CELL = 20
const MOVES = [Vector2(1, 0), Vector2(0, 1), Vector2(-1, 0), Vector2(0, -1)]
const STEP_REWARD = -1.0 / 64
const BUMP_REWARD = -2.0 / 64
const EPISODE_STEPS = 120
const LEARNING_RATE = 0.5
const DISCOUNT = 0.97
const RETURNS = 20
const BUDGET_USEC = 8000  # of steps, between two turns of the engine's main loop

var ring = preload("res://godot_ring.gd").new()
var dice = RandomNumberGenerator.new()
var options = {"steps": 0, "episodes": 300, "seed": 0, "rate": 0, "checked": 0}
var free_cells = []
var worth = {}  # of the four moves, by cell
var cell = Vector2()
var steps = 0
var episode = 1
var episode_steps = 0
var episode_return = 0.0
var return_sum = 0.0
var returns = []
var drawn = 0
var started_usec = 0
var is_over = true


func _ready():
	for argument in OS.get_cmdline_args():
		var parts = argument.trim_prefix("--").split("=")
		if parts.size() == 2 and options.has(parts[0]):
			options[parts[0]] = int(parts[1])
	ring.is_checked = ring.is_checked or options["checked"] == 1
	dice.seed = options["seed"]
	VisualServer.render_loop_enabled = false  # we draw when somebody looks
	_build()
	print(to_json({
		"kind": "run",
		"config": {"seed": options["seed"], "learning_rate": LEARNING_RATE, "discount": DISCOUNT},
		"env": {"name": "arena", "columns": MAP[0].length(), "rows": MAP.size()},
		"versions": {"godot": Engine.get_version_info()["string"]},
	}))
	yield(get_tree(), "physics_frame")  # from here on the bodies are where they were put
	yield(get_tree(), "physics_frame")
	started_usec = OS.get_ticks_usec()
	is_over = false
	_begin()


func _process(_delta):
	var end_usec = OS.get_ticks_usec() + BUDGET_USEC
	while not is_over and OS.get_ticks_usec() < end_usec and not _is_early():
		_step()
	if not is_over and _is_early():
		OS.delay_msec(1)


# Whether the next step has to wait, for there are not to be more of them a second.
func _is_early():
	return options["rate"] and steps * 1000000.0 / options["rate"] > OS.get_ticks_usec() - started_usec


func _build():
	for row in range(MAP.size()):
		for column in range(MAP[row].length()):
			var place = Vector2(column, row)
			var kind = MAP[row][column]
			if kind == "#":
				_add_wall(place)
			elif kind == "~":
				_add_tile(place, Color(0.85, 0.25, 0.2))
			elif kind == "G":
				_add_tile(place, Color(0.3, 0.8, 0.4))
			else:
				free_cells.append(place)


func _add_tile(place, color):
	var tile = Polygon2D.new()
	tile.polygon = PoolVector2Array([Vector2(0, 0), Vector2(CELL, 0), Vector2(CELL, CELL), Vector2(0, CELL)])
	tile.position = place * CELL
	tile.color = color
	$Ground.add_child(tile)


func _add_wall(place):
	_add_tile(place, Color(0.4, 0.44, 0.52))
	var shape = CollisionShape2D.new()
	shape.shape = RectangleShape2D.new()
	shape.shape.extents = Vector2(CELL, CELL) / 2
	var wall = StaticBody2D.new()
	wall.position = _middle(place)
	wall.add_child(shape)
	$Ground.add_child(wall)


func _middle(place):
	return place * CELL + Vector2(CELL, CELL) / 2


func _begin():
	cell = free_cells[dice.randi_range(0, free_cells.size() - 1)]
	$Agent.position = _middle(cell)
	episode_steps = 0
	episode_return = 0.0


func _worth(place):
	if not worth.has(place):
		worth[place] = [0.0, 0.0, 0.0, 0.0]
	return worth[place]


func _choose(exploration):
	if dice.randf() < exploration:
		return dice.randi_range(0, 3)
	var known = _worth(cell)
	return known.find(known.max())


func _step():
	var exploration = max(0.05, 1.0 - episode / 100.0)
	var before = cell
	var action = _choose(exploration)
	var reward = STEP_REWARD
	if $Agent.test_move($Agent.transform, MOVES[action] * CELL):
		reward = BUMP_REWARD
	else:
		cell += MOVES[action]
		$Agent.position = _middle(cell)
	$Agent.rotation = MOVES[action].angle()
	var kind = MAP[cell.y][cell.x]
	var is_terminated = kind == "G" or kind == "~"
	if is_terminated:
		reward += 1.0 if kind == "G" else -1.0
	var known = _worth(before)
	known[action] += LEARNING_RATE * (reward + (0.0 if is_terminated else DISCOUNT * _worth(cell).max()) - known[action])
	steps += 1
	episode_steps += 1
	episode_return += reward
	var is_truncated = not is_terminated and episode_steps == EPISODE_STEPS
	print('{"kind":"step","action":%d,"reward":%.6f,"terminated":%s,"truncated":%s,"observation":[%d,%d]}' % [
		action, reward, str(is_terminated).to_lower(), str(is_truncated).to_lower(), cell.x, cell.y,
	])
	if ring.is_due():
		_show(reward)
	if is_terminated or is_truncated:
		_end(exploration)
	if options["steps"] and steps >= options["steps"] or episode > options["episodes"]:
		_finish()


func _show(reward):
	VisualServer.force_draw(false)
	drawn += 1
	ring.publish(get_viewport().get_texture().get_data(), {
		"episode": episode,
		"step": episode_steps,
		"reward": reward,
		"episode_return": episode_return,
		"rolling_return": _mean_return(),
		"step_rate_hz": steps * 1000000.0 / max(1, OS.get_ticks_usec() - started_usec),
	})


func _mean_return():
	var sum = 0.0
	for value in returns:
		sum += value
	return sum / max(1, returns.size())


func _end(exploration):
	return_sum += episode_return
	returns.append(episode_return)
	if returns.size() > RETURNS:
		returns.pop_front()
	print(to_json({"kind": "metrics", "values": {"policy/exploration": exploration, "return/mean": _mean_return()}}))
	episode += 1
	_begin()


func _finish():
	is_over = true
	print(to_json({
		"steps": steps,
		"episodes": episode - 1,
		"return_sum": return_sum,
		"mean_return": _mean_return(),
		"drawn": drawn,
		"published": ring.published,
		"seconds": (OS.get_ticks_usec() - started_usec) / 1000000.0,
	}))
	get_tree().quit(0)
