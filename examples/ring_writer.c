/* An engine in C that shows itself to runlane's viewers, by docs/reference/ring-layout.md alone: C11, POSIX, nothing else.

   A ball falls and bounces. Each step is one line of JSON on standard output, and while somebody watches the ball is drawn
   into a ring in shared memory, as often as is asked for. Build and watch it:

       cc -std=c11 -O2 -o ring_writer examples/ring_writer.c
       runlane run --jsonl stdout -- ./ring_writer      # the ring is made for us: RUNLANE_RING is its head
       ./ring_writer RUN_DIRECTORY > steps.jsonl        # our own ring, for the viewers of that graph

   then `runlane watch` in another terminal. It ends after --steps N, or by SIGINT or SIGTERM. To write frames from a
   program of yours, take the parts up to "The engine". One thread writes a ring. */

#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- The layout: offsets as in ring-layout.md, in bytes for headers and in words of 8 bytes for what is stored whole. */

enum { HEAD_BYTES = 4096, SLOTS_HEADER_BYTES = 4096, SLOT_HEADER_BYTES = 128, INFO = 640, CHECK = 80 };
enum { GENERATION = 64 / 8, NEWEST = 72 / 8, CLOSED = 80 / 8, ASKED = 88 / 8, LOOKED = 96 / 8, ENGINE = 104 / 8 };
enum { LEASE = 128 / 8, LEASE_WORDS = 64 / 8, LEASES = 8, UNTIL = 1, RATE = 2 };
enum { MAX_SIDE = 16384, PATH_ROOM = 1024 };
static const uint64_t AHEAD_NS = 1800000000, HELD_NS = 1000000000;
static const char SHARED_MEMORY[] = "/dev/shm";

/* What stands beside the pixels: offset 8 to 80 of a slot. */
struct hud {
    uint64_t step_seq;
    int64_t t_ns, mono_ns;
    uint64_t place; /* episode + (step << 32) */
    uint32_t env_index, tile;
    double last_reward, episode_return, rolling_return, step_rate_hz;
};

struct ring {
    bool is_open, is_held, is_checked; /* held: another process made the ring, and removes it */
    int fd;
    char head[PATH_ROOM], directories[2][PATH_ROOM], slots_path[PATH_ROOM + 16];
    _Atomic uint64_t *words; /* of the head */
    uint8_t *slots;          /* the slots file, NULL before the first frame */
    size_t slots_bytes;
    uint64_t wanted_slots, slot_count, slot_bytes, generation, newest;
    int width, height, channels;
    uint64_t due_ns;
};

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- The name of a ring: rl-GRAPH-ID, where GRAPH begins the SHA-256 of the run directory's path (FIPS 180-4). */

static uint32_t rotated(uint32_t x, int by) { return x >> by | x << (32 - by); }

__extension__ typedef unsigned __int128 wide;

/* The first 32 bits behind the point of a prime's square or cube root: SHA-256 takes its constants from there. */
static uint32_t root_fraction(int prime, bool is_cube) {
    uint64_t low = 0, high = (uint64_t)1 << 36; /* the root times 2^32 lies between them */
    while (high - low > 1) {
        wide middle = low + (high - low) / 2;
        bool is_above = is_cube ? middle * middle * middle > (wide)prime << 96 : middle * middle > (wide)prime << 64;
        *(is_above ? &high : &low) = (uint64_t)middle;
    }
    return (uint32_t)low;
}

static void sha256_block(uint32_t hash[8], const uint32_t k[64], const uint8_t *block) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(v, hash, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25);
        uint32_t s0 = rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) hash[i] += v[i];
}

/* The first ten hexadecimal digits of the SHA-256 of a text. */
static void graph_digits(const char *text, char digits[11]) {
    uint32_t hash[8], k[64];
    for (int prime = 2, found = 0; found < 64; prime++) {
        bool is_prime = true;
        for (int i = 2; i * i <= prime; i++) is_prime &= prime % i != 0;
        if (!is_prime) continue;
        if (found < 8) hash[found] = root_fraction(prime, false);
        k[found++] = root_fraction(prime, true);
    }
    size_t length = strlen(text), padded = (length + 9 + 63) / 64 * 64;
    uint8_t *message = calloc(padded, 1);
    if (!message) abort();
    memcpy(message, text, length);
    message[length] = 0x80;
    for (size_t i = 0; i < 8; i++) message[padded - 1 - i] = (uint8_t)((uint64_t)length * 8 >> 8 * i);
    for (size_t at = 0; at < padded; at += 64) sha256_block(hash, k, message + at);
    free(message);
    snprintf(digits, 11, "%08x%02x", hash[0], hash[1] >> 24);
}

/* ---- The head. */

/* A new file with all its blocks, so that a full memory is an error now and not a SIGBUS later; -1 where it cannot be. */
static int make_file(const char *path, off_t size) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -1;
    int problem = posix_fallocate(fd, 0, size);
    if (!problem) return fd;
    close(fd);
    unlink(path);
    errno = problem;
    return -1;
}

/* A head of a new name, locked: from here on sweeps leave it alone. False where this directory has no room for one. */
static bool make_head(struct ring *ring, const char *directory, const char *graph) {
    for (;;) {
        uint32_t id;
        int dice = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
        if (dice < 0 || read(dice, &id, sizeof id) != sizeof id) abort();
        close(dice);
        snprintf(ring->head, sizeof ring->head, "%s/rl-%s-%08x", directory, graph, id);
        ring->fd = make_file(ring->head, HEAD_BYTES);
        if (ring->fd < 0 && errno == EEXIST) continue;
        if (ring->fd < 0) return false;
        struct stat ours, named;
        if (!flock(ring->fd, LOCK_EX | LOCK_NB) && !fstat(ring->fd, &ours) && !stat(ring->head, &named) &&
            ours.st_dev == named.st_dev && ours.st_ino == named.st_ino)
            return true;
        close(ring->fd); /* a sweep took it for a dead writer's, in the moment before our lock */
        unlink(ring->head);
    }
}

static uint8_t *put_text(uint8_t *at, const char *text) {
    size_t length = strlen(text);
    if (length > 255) length = 255;
    *at++ = 0xd9; /* MessagePack: a text of up to 255 bytes */
    *at++ = (uint8_t)length;
    memcpy(at, text, length);
    return at + length;
}

static const char *variable(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

/* Whose ring it is: a MessagePack map, and its length before it. */
static void put_info(uint8_t *head, const char *worker) {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const char *facts[][2] = {{"run", variable("RUNLANE_RUN", worker)},
                              {"worker", worker},
                              {"run_name", variable("RUNLANE_RUN_NAME", worker)},
                              {"host", host}};
    uint8_t *at = head + INFO + 4;
    *at++ = 0x84; /* a map of 4 pairs; `stream` and `env_count` have defaults */
    for (int i = 0; i < 4; i++) at = put_text(put_text(at, facts[i][0]), facts[i][1]);
    uint32_t length = (uint32_t)(at - (head + INFO + 4));
    memcpy(head + INFO, &length, sizeof length);
}

/* When this process started, in clock ticks since boot: the 22nd word of its stat, the second of which has spaces. */
static uint64_t started_ticks(void) {
    char text[1024] = "";
    FILE *stat_file = fopen("/proc/self/stat", "r");
    if (!stat_file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, stat_file);
    fclose(stat_file);
    text[length] = 0;
    char *at = strrchr(text, ')');
    for (int word = 2; at && word < 22; word++) at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

static bool map_head(struct ring *ring) {
    void *head = mmap(NULL, HEAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
    if (head == MAP_FAILED) return false;
    ring->words = head;
#if defined(__x86_64__) || defined(__i386__)
    ring->is_checked = false;
#else
    ring->is_checked = true; /* readers in Python have no fences */
#endif
    return ring->is_open = true;
}

/* A ring of our own in the graph of a run directory, given as an absolute path without a slash at its end. */
static bool ring_make(struct ring *ring, const char *run_directory, const char *worker, uint64_t slots) {
    char graph[11];
    struct stat found;
    bool has_memory = !stat(SHARED_MEMORY, &found) && S_ISDIR(found.st_mode);
    memset(ring, 0, sizeof *ring);
    ring->wanted_slots = slots;
    graph_digits(run_directory, graph);
    const char *places[] = {has_memory ? SHARED_MEMORY : run_directory, run_directory};
    bool is_there = make_head(ring, places[0], graph), is_second = !is_there;
    if (!is_there && !make_head(ring, places[1], graph)) return false;
    for (int i = 0; i < 2; i++) snprintf(ring->directories[i], PATH_ROOM, "%s", places[is_second ? 1 : i]);
    if (!map_head(ring)) return unlink(ring->head), close(ring->fd), false;
    uint8_t first[HEAD_BYTES] = {'R', 'L', 'F', 'L'};
    const uint16_t version = 1;
    const uint64_t words[] = {(uint64_t)getpid(), started_ticks(), clock_ns(CLOCK_REALTIME)};
    memcpy(first + 4, &version, sizeof version);
    memcpy(first + 8, words, sizeof words);
    put_info(first, worker);
    memcpy((uint8_t *)ring->words + 8, first + 8, HEAD_BYTES - 8);
    uint64_t magic;
    memcpy(&magic, first, sizeof magic);
    atomic_store_explicit(&ring->words[0], magic, memory_order_release); /* the magic last: nobody reads half a head */
    return true;
}

/* The ring that was made for us: RUNLANE_RING is the path of its head. */
static bool ring_join(struct ring *ring, const char *head, uint64_t slots) {
    memset(ring, 0, sizeof *ring);
    ring->wanted_slots = slots;
    ring->is_held = true;
    snprintf(ring->head, sizeof ring->head, "%s", head);
    snprintf(ring->directories[0], PATH_ROOM, "%s", head);
    char *name = strrchr(ring->directories[0], '/');
    if (!name) return false;
    *name = 0;
    snprintf(ring->directories[1], PATH_ROOM, "%s", variable("RUNLANE_RUN_DIR", ring->directories[0]));
    ring->fd = open(head, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (ring->fd < 0) return false;
    if (!map_head(ring)) return close(ring->fd), false;
    atomic_store_explicit(&ring->words[ENGINE], (uint64_t)getpid(), memory_order_release); /* we can draw */
    return true;
}

/* ---- What viewers ask for. */

/* Frames wanted per 1000 seconds; 0 while nobody watches. */
static uint64_t ring_asked(struct ring *ring, uint64_t now_ns) {
    if (ring->is_held) { /* the maker has looked at the leases for us, if it still does */
        uint64_t looked_ns = atomic_load_explicit(&ring->words[LOOKED], memory_order_relaxed);
        return now_ns < looked_ns + HELD_NS ? atomic_load_explicit(&ring->words[ASKED], memory_order_relaxed) : 0;
    }
    uint64_t rate = 0;
    for (int line = 0; line < LEASES; line++) {
        _Atomic uint64_t *lease = ring->words + LEASE + line * LEASE_WORDS;
        uint64_t until_ns = atomic_load_explicit(&lease[UNTIL], memory_order_acquire);
        uint64_t wanted = atomic_load_explicit(&lease[RATE], memory_order_relaxed);
        if (now_ns < until_ns && until_ns <= now_ns + AHEAD_NS && wanted > rate) rate = wanted;
    }
    return rate < 1000000 ? rate : 1000000;
}

/* Whether a frame is wanted now. What was missed is not made up for. */
static bool ring_is_due(struct ring *ring, uint64_t now_ns) {
    if (!ring->is_open || now_ns < ring->due_ns) return false;
    uint64_t rate = ring_asked(ring, now_ns);
    if (!rate) return false;
    uint64_t period_ns = 1000000000000u / rate;
    ring->due_ns = ring->due_ns + period_ns > now_ns ? ring->due_ns + period_ns : now_ns + period_ns;
    return true;
}

/* ---- Frames. */

static void drop_slots(struct ring *ring) {
    if (!ring->slots) return;
    munmap(ring->slots, ring->slots_bytes);
    unlink(ring->slots_path);
    ring->slots = NULL;
}

/* The next generation, for frames of another size: fewer slots rather than none. */
static bool make_slots(struct ring *ring, int width, int height, int channels) {
    uint64_t frame_bytes = (uint64_t)width * (uint64_t)height * (uint64_t)channels, generation = ring->generation + 1;
    uint64_t slot_bytes = (SLOT_HEADER_BYTES + frame_bytes + 63) / 64 * 64, counts[] = {ring->wanted_slots, 2, 1};
    int fd = -1;
    drop_slots(ring);
    for (int attempt = 0; attempt < 6 && fd < 0; attempt++) {
        ring->slot_count = counts[attempt / 2];
        ring->slots_bytes = SLOTS_HEADER_BYTES + ring->slot_count * slot_bytes;
        snprintf(ring->slots_path, sizeof ring->slots_path, "%s/%s.%llu", ring->directories[attempt % 2],
                 strrchr(ring->head, '/') + 1, (unsigned long long)generation);
        fd = make_file(ring->slots_path, (off_t)ring->slots_bytes);
    }
    if (fd < 0) return false;
    void *slots = mmap(NULL, ring->slots_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (slots == MAP_FAILED) return unlink(ring->slots_path), false;
    ring->slots = slots;
    const uint16_t version = 1;
    const uint64_t words[] = {generation,      ring->slot_count, slot_bytes,         frame_bytes,     (uint64_t)width,
                              (uint64_t)height, (uint64_t)channels, ring->is_checked};
    memcpy(ring->slots, "RLFS", 4);
    memcpy(ring->slots + 4, &version, sizeof version);
    memcpy(ring->slots + 8, words, sizeof words);
    ring->slot_bytes = slot_bytes;
    ring->generation = generation;
    ring->width = width, ring->height = height, ring->channels = channels;
    atomic_store_explicit(&ring->words[GENERATION], generation, memory_order_release);
    return true;
}

static uint32_t adler32(uint32_t before, const uint8_t *bytes, size_t count) {
    uint32_t a = before & 0xffff, b = before >> 16;
    while (count) {
        size_t part = count < 5552 ? count : 5552; /* so many sums fit into 32 bits */
        for (size_t i = 0; i < part; i++) b += a += *bytes++;
        a %= 65521, b %= 65521, count -= part;
    }
    return b << 16 | a;
}

/* Show a frame: rows from the top, no padding, 1 byte per channel (1 gray, 3 RGB, 4 RGBA). Waits for nobody. */
static bool ring_publish(struct ring *ring, const uint8_t *pixels, int width, int height, int channels, struct hud hud) {
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || (channels != 1 && channels != 3 && channels != 4))
        return false;
    bool is_other = !ring->slots || width != ring->width || height != ring->height || channels != ring->channels;
    if (is_other && !make_slots(ring, width, height, channels)) return false;
    size_t frame_bytes = (size_t)width * (size_t)height * (size_t)channels;
    uint64_t number = ring->newest + 1;
    uint8_t *slot = ring->slots + SLOTS_HEADER_BYTES + number % ring->slot_count * ring->slot_bytes;
    atomic_store_explicit((_Atomic uint64_t *)(void *)slot, number, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* from here on no reader believes this slot */
    memcpy(slot + 8, &hud, sizeof hud);
    memcpy(slot + SLOT_HEADER_BYTES, pixels, frame_bytes);
    if (ring->is_checked) {
        uint64_t check = adler32(adler32(1, slot, CHECK), pixels, frame_bytes);
        memcpy(slot + CHECK, &check, sizeof check);
    }
    ring->newest = number;
    atomic_store_explicit(&ring->words[NEWEST], number, memory_order_release); /* here it is */
    return true;
}

/* The end: who has the ring open still reads the last frame. Slots first, so that a sweep finds the rest by the head. */
static void ring_close(struct ring *ring) {
    if (!ring->is_open) return;
    if (!ring->is_held) {
        atomic_store_explicit(&ring->words[CLOSED], 1, memory_order_release);
        drop_slots(ring);
        unlink(ring->head);
    } else if (ring->slots) {
        munmap(ring->slots, ring->slots_bytes);
    }
    munmap((void *)ring->words, HEAD_BYTES);
    close(ring->fd); /* and with it the lock */
    memset(ring, 0, sizeof *ring);
}

_Static_assert(sizeof(struct hud) == CHECK - 8, "the fields between number and check");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words are stored whole");

/* ---- The engine. */

#ifndef RING_WRITER_WITHOUT_MAIN

enum { WIDTH = 160, HEIGHT = 120, RADIUS = 6, EPISODE_STEPS = 400 };

struct ball {
    double x, y, speed_x, speed_y;
};

static volatile sig_atomic_t is_stopping;

static void stop(int number) {
    (void)number;
    is_stopping = 1;
}

/* One step: it falls, bounces off floor and walls, and is kicked up if the action says so. Its height is the reward. */
static double step_ball(struct ball *ball, bool is_kicked) {
    ball->speed_y += 0.1;
    if (is_kicked && ball->y > HEIGHT - RADIUS - 2) ball->speed_y = -4.5;
    ball->x += ball->speed_x, ball->y += ball->speed_y;
    if (ball->x < RADIUS || ball->x > WIDTH - RADIUS) ball->speed_x = -ball->speed_x;
    if (ball->y > HEIGHT - RADIUS) ball->y = HEIGHT - RADIUS, ball->speed_y *= -0.6;
    if (ball->y < RADIUS) ball->y = RADIUS, ball->speed_y = 0;
    return 1 - ball->y / HEIGHT;
}

static void draw_ball(const struct ball *ball, uint8_t *pixels) {
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            double dx = x - ball->x, dy = y - ball->y;
            bool is_ball = dx * dx + dy * dy < RADIUS * RADIUS;
            uint8_t *pixel = pixels + 3 * (y * WIDTH + x);
            pixel[0] = is_ball ? 240 : 20, pixel[1] = is_ball ? 160 : (uint8_t)(20 + y / 2), pixel[2] = is_ball ? 40 : 60;
        }
}

int main(int count, char **arguments) {
    const char *run_directory = NULL, *head = getenv("RUNLANE_RING"), *worker = variable("RUNLANE_WORKER_NAME", "ball");
    long steps = 0, pause_us = 1000, drawn = 0, made = 0, episode = 1, in_episode = 0;
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--steps") && i + 1 < count) steps = atol(arguments[++i]);
        else if (!strcmp(arguments[i], "--pause-us") && i + 1 < count) pause_us = atol(arguments[++i]);
        else if (arguments[i][0] == '/' && !run_directory) run_directory = arguments[i];
        else return fprintf(stderr, "usage: %s [RUN_DIRECTORY, absolute] [--steps N] [--pause-us N]\n", arguments[0]), 2;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL), sigaction(SIGTERM, &action, NULL);
    struct ring ring = {.is_open = false};
    if (run_directory ? !ring_make(&ring, run_directory, worker, 4) : head && !ring_join(&ring, head, 4))
        fprintf(stderr, "no ring, so no picture: %s\n", strerror(errno));
    static uint8_t pixels[WIDTH * HEIGHT * 3];
    struct ball ball = {WIDTH / 2.0, RADIUS, 1.3, 0};
    double episode_return = 0, last_return = 0;
    uint64_t started_ns = clock_ns(CLOCK_MONOTONIC);
    while (!is_stopping && (!steps || made < steps)) {
        bool is_kicked = rand() % 3 == 0;
        double reward = step_ball(&ball, is_kicked);
        bool is_last = ++in_episode == EPISODE_STEPS;
        episode_return += reward, made++;
        printf("{\"kind\":\"step\",\"action\":%d,\"reward\":%.17g,\"truncated\":%s}\n", is_kicked, reward,
               is_last ? "true" : "false");
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        if (ring_is_due(&ring, now_ns)) { /* asked before anything is drawn */
            struct hud hud = {.t_ns = (int64_t)clock_ns(CLOCK_REALTIME), .mono_ns = (int64_t)now_ns};
            hud.place = (uint64_t)episode | (uint64_t)in_episode << 32;
            hud.last_reward = reward, hud.episode_return = episode_return, hud.rolling_return = last_return;
            hud.step_rate_hz = (double)made * 1e9 / (double)(now_ns - started_ns + 1);
            draw_ball(&ball, pixels), drawn++;
            ring_publish(&ring, pixels, WIDTH, HEIGHT, 3, hud);
        }
        if (is_last) {
            last_return = episode_return, episode_return = 0, in_episode = 0, episode++;
            ball = (struct ball){WIDTH / 2.0, RADIUS, 1.3, 0};
        }
        fflush(stdout);
        if (pause_us) usleep((useconds_t)pause_us);
    }
    fprintf(stderr, "{\"steps\": %ld, \"episodes\": %ld, \"drawn\": %ld, \"published\": %llu}\n", made, episode - 1,
            drawn, (unsigned long long)ring.newest);
    ring_close(&ring);
    return 0;
}

#endif
