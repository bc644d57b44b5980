/* All tests in one program: `suite NAME` runs one, `suite NAME --few` with less of everything. A test returns if it passes, and exits with 1 if it fails. */
#include "test.h"

#include <unistd.h>

#define TESTS(X) \
    X(null_pointers) \
    X(tokens) \
    X(racing_free) \
    X(tables) \
    X(options) \
    X(option_files) \
    X(adopted_sockets) \
    X(life) \
    X(rounds) \
    X(stopped_waits) \
    X(exit_while_running) \
    X(cluster_threads) \
    X(cluster_manual) \
    X(cluster_pull) \
    X(metadata) \
    X(snapshots) \
    X(deaths) \
    X(keys) \
    X(refused) \
    X(unheard) \
    X(overflow) \
    X(messages) \
    X(broadcasts) \
    X(neighbours) \
    X(validation) \
    X(requests) \
    X(pulled_messages) \
    X(streams) \
    X(queries) \
    X(calls_in_callbacks) \
    X(release_in_callback) \
    X(user_data) \
    X(subscriptions) \
    X(one_dispatcher) \
    X(waiting) \
    X(logging) \
    X(shared_runtime) \
    X(statistics) \
    X(forked_child) \
    X(daemons) \
    X(manners)

int test_few;

#define DECLARE(name) void test_##name(void);
TESTS(DECLARE)

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define ENTRY(name) {#name, test_##name},
        TESTS(ENTRY)
    };
    const size_t count = sizeof tests / sizeof *tests;
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t n = 0; n < count; n++)
            puts(tests[n].name);
        return 0;
    }
    test_few = argc == 3 && strcmp(argv[2], "--few") == 0;
    for (size_t n = 0; n < count; n++) {
        if (argc == 2 + test_few && strcmp(argv[1], tests[n].name) == 0) {
            alarm(20 * PATIENCE_MS / 1000); /* a test that hangs has failed, too; under valgrind it may take its time */
            tests[n].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: suite NAME [--few] | --list\n");
    return 2;
}
