# Frames for runlane's viewers, from Godot 3: copy this file into a project of yours.
#
#     var ring = preload("res://godot_ring.gd").new()
#     if ring.is_due():  # after a step, and before anything is drawn
#         VisualServer.force_draw(false)
#         ring.publish(get_viewport().get_texture().get_data(), {"episode": 1, "step": 5, "reward": 0.5})
#
# GDScript cannot map memory. But what it writes into a file of the shared-memory file system is what others have mapped,
# at once and in the order of the writes: see "Through a file" in docs/reference/ring-layout.md. A write leaves Godot when
# the file is closed, or at the next seek.
extends Reference

const SLOTS = 4
const HEADER_BYTES = 4096
const SLOT_HEADER_BYTES = 128
const NEWEST = 72
const GENERATION = 64
const ASKED = 88
const ENGINE = 104
const LOOK_USEC = 10000
const HELD_USEC = 1000000

var published = 0  # frames so far
var is_checked = not (OS.has_feature("x86_64") or OS.has_feature("x86"))  # other processors need not keep the order
var _head = OS.get_environment("RUNLANE_RING")
var _slots = null  # the open slots file
var _slots_path = ""
var _size = Vector2()
var _slot_bytes = 0
var _generation = 0
var _asked = 0  # frames wanted per 1000 seconds
var _looked_ns = 0  # when the session looked for us last, on the host's monotonic clock
var _changed_usec = 0  # our own clock when we saw that
var _clock_ns = 0  # the host's monotonic clock less ours
var _next_look_usec = 0
var _due_usec = 0


func _init():
	if _head != "":
		_store(ENGINE, OS.get_process_id())  # we can draw: from here on viewers see the ring


# Whether a viewer wants a frame now. Costs next to nothing most of the time.
func is_due():
	if _head == "":
		return false
	var now_usec = OS.get_ticks_usec()
	if now_usec >= _next_look_usec:
		_next_look_usec = now_usec + LOOK_USEC
		_look(now_usec)
	if _asked == 0 or now_usec < _due_usec:
		return false
	var period_usec = 1000000000 / _asked
	_due_usec = max(_due_usec + period_usec, now_usec + period_usec / 2)  # what was missed is not made up for
	return true


# Show an image, with what belongs to it: episode, step, reward, episode_return, rolling_return, step_rate_hz.
func publish(image, hud):
	image.flip_y()  # the renderer's rows begin at the bottom
	image.convert(Image.FORMAT_RGB8)
	if (_slots == null or image.get_size() != _size) and not _make_slots(image.get_size()):
		_head = ""  # no room: nothing is drawn any more
		return
	var number = published + 1
	var slot = HEADER_BYTES + number % SLOTS * _slot_bytes
	var fields = _fields(hud)
	var pixels = image.get_data()
	_slots.seek(slot)
	_slots.store_64(number)
	_slots.seek(slot + 8)  # the number has left: from here on no reader believes this slot
	_slots.store_buffer(fields)
	if is_checked:
		_slots.store_64(_check(number, fields, pixels))
	_slots.seek(slot + SLOT_HEADER_BYTES)
	_slots.store_buffer(pixels)
	_slots.seek(0)  # all has left
	published = number
	_store(NEWEST, number)


# The session looks at the viewers' leases for us, some hundred times a second, and says what it saw.
func _look(now_usec):
	var file = File.new()  # opened anew: an open one would give what it has read before
	if file.open(_head, File.READ) != OK:
		_asked = 0
		return
	file.seek(ASKED)
	_asked = file.get_64()
	var looked_ns = file.get_64()
	file.close()
	if looked_ns != _looked_ns:
		_looked_ns = looked_ns
		_changed_usec = now_usec
		_clock_ns = max(_clock_ns, looked_ns - now_usec * 1000) if _clock_ns else looked_ns - now_usec * 1000
	elif now_usec - _changed_usec > HELD_USEC:
		_asked = 0


func _fields(hud):
	var buffer = StreamPeerBuffer.new()
	buffer.put_64(0)  # no seq: which record a step becomes is not known here
	buffer.put_64(OS.get_system_time_msecs() * 1000000)
	buffer.put_64(OS.get_ticks_usec() * 1000 + _clock_ns)
	buffer.put_u32(hud.get("episode", 0))
	buffer.put_u32(hud.get("step", 0))
	buffer.put_u32(hud.get("env_index", 0))
	buffer.put_u32(0)
	for name in ["reward", "episode_return", "rolling_return", "step_rate_hz"]:
		buffer.put_double(hud.get(name, 0.0))
	return buffer.data_array


# The next generation: a file of its own for frames of this size, all its blocks written before it is used.
func _make_slots(size):
	var frame_bytes = int(size.x) * int(size.y) * 3
	_generation += 1
	_slot_bytes = (SLOT_HEADER_BYTES + frame_bytes + 63) / 64 * 64
	if _slots != null:
		_slots.close()
		Directory.new().remove(_slots_path)
		_slots = null
	for directory in [_head.get_base_dir(), OS.get_environment("RUNLANE_RUN_DIR")]:
		_slots_path = "%s/%s.%d" % [directory, _head.get_file(), _generation]
		if directory != "" and _fill(_slots_path, HEADER_BYTES + SLOTS * _slot_bytes):
			var file = File.new()
			if file.open(_slots_path, File.READ_WRITE) != OK:
				continue
			file.store_buffer("RLFS".to_ascii())
			file.store_16(1)
			file.store_16(0)
			for word in [_generation, SLOTS, _slot_bytes, frame_bytes, int(size.x), int(size.y), 3, int(is_checked)]:
				file.store_64(word)
			file.seek(0)
			_slots = file
			_size = size
			_store(GENERATION, _generation)
			return true
	return false


func _fill(path, bytes):
	var file = File.new()
	if file.open(path, File.WRITE_READ) != OK:
		return false
	var zeros = PoolByteArray()
	for _byte in range(4096):
		zeros.append(0)
	for start in range(0, bytes, 4096):
		file.store_buffer(zeros if bytes - start >= 4096 else zeros.subarray(0, bytes - start - 1))
	file.close()
	var is_whole = file.open(path, File.READ) == OK and file.get_len() == bytes
	file.close()
	if not is_whole:
		Directory.new().remove(path)
	return is_whole


# Adler-32 of all before the check, and of the pixels: what zlib puts behind all that it packs.
func _check(number, fields, pixels):
	var first = StreamPeerBuffer.new()
	first.put_64(number)
	var all = first.data_array
	all.append_array(fields)
	all.append_array(pixels)
	var packed = all.compress(File.COMPRESSION_DEFLATE)
	var end = packed.size()
	return packed[end - 4] << 24 | packed[end - 3] << 16 | packed[end - 2] << 8 | packed[end - 1]


func _store(offset, word):
	var file = File.new()
	if file.open(_head, File.READ_WRITE) == OK:
		file.seek(offset)
		file.store_64(word)
		file.close()
