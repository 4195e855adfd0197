/* The ring of examples/ring_writer.c at full speed, its frames of changing size, as tests/process/ring_process.py checks
   them: every pixel and every field of a frame says its number.

   ring_stress RUN_DIR SLOTS SECONDS plain|checked     begins once two viewers watch; then says what it did, as JSON */

#define RING_WRITER_WITHOUT_MAIN
#include "../../examples/ring_writer.c"

enum { LARGE = 400 * 600 * 3, BURST = 20 };

static int viewers(struct ring *ring) {
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    int found = 0;
    for (int line = 0; line < LEASES; line++) found += ring->words[LEASE + line * LEASE_WORDS + UNTIL] > now_ns;
    return found;
}

static void publish(struct ring *ring, uint8_t *pixels, bool is_large) {
    uint64_t number = ring->newest + 1, scattered = number * 0x9E3779B97F4A7C15u, t_ns = clock_ns(CLOCK_MONOTONIC);
    int height = is_large ? 400 : 84, width = is_large ? 600 : 84;
    uint32_t low = (uint32_t)number;
    double value = (double)number;
    struct hud hud = {number, (int64_t)t_ns, (int64_t)t_ns + 1, number << 32, low, low ^ 1,
                      value / 3, -value, value * 0.5, value + 0.25};
    for (int i = 0; i < height * width * 3 / 8; i++) memcpy(pixels + 8 * i, &scattered, 8);
    if (!ring_publish(ring, pixels, width, height, 3, hud)) abort();
}

int main(int count, char **arguments) {
    static uint8_t pixels[LARGE];
    struct ring ring;
    if (count != 5 || !ring_make(&ring, arguments[1], "stress", strtoull(arguments[2], NULL, 10))) return 1;
    ring.is_checked = !strcmp(arguments[4], "checked");
    uint64_t end_ns = clock_ns(CLOCK_MONOTONIC) + 20000000000u;
    while (viewers(&ring) < 2)
        if (clock_ns(CLOCK_MONOTONIC) > end_ns || usleep(1000)) return 1;
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC), passed_ns = 0;
    for (; (double)passed_ns < atof(arguments[3]) * 1e9; passed_ns = clock_ns(CLOCK_MONOTONIC) - start_ns)
        for (int i = 0; i < BURST; i++) publish(&ring, pixels, passed_ns / 100000000 % 4 == 3);
    printf("{\"published\": %llu, \"generations\": %llu}\n", (unsigned long long)ring.newest,
           (unsigned long long)ring.generation);
    fflush(stdout);
    ring_close(&ring);
    return 0;
}
