// Watches a cluster, in C++17: every event as a line, in the program's own poll() loop, until its input ends.
//
//     ./watch HOST:PORT [SEED...]
#include <bruit.hpp>

#include <iostream>
#include <poll.h>
#include <unistd.h>

static void print(const bruit::event &event) {
    std::cout << event.name();
    if (auto member = event.member()) {
        std::cout << ' ' << member->name() << ' ' << member->address();
        for (auto [key, value] : member->meta())
            std::cout << ' ' << key << '=' << value;
    }
    if (!event.text().empty())
        std::cout << ' ' << event.text();
    std::cout << std::endl;
}

// True when the input has ended.
static bool input_ended() {
    char ignored[256];
    return read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

static void watch(const std::string &bind, const std::vector<std::string> &seeds) {
    bruit::config config;
    config.set("bind", bind).set("dispatch", "manual").meta("role", "watcher");
    for (const std::string &seed : seeds)
        config.seed(seed);
    config.on_log(BRUIT_LEVEL_WARNING, [](int, std::string_view target, std::string_view text) {
        std::cerr << target << ": " << text << '\n';
    });

    bruit::node node(config);
    node.on_event(BRUIT_EVENT_ALL, print);
    node.start();
    std::cout << node.name() << " is at " << node.address() << std::endl;

    pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {node.event_fd(), POLLIN, 0}};
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue; // a signal
        if (fds[1].revents)
            node.dispatch();
        if (fds[0].revents && input_ended())
            break;
    }
    for (bruit::member member : node.members())
        std::cout << "  " << member.name() << ' ' << member.state_name() << '\n';
    node.leave(std::chrono::seconds(2));
    node.free();
}

int main(int argc, char **argv) {
    if (argc < 2) {
        std::cerr << "usage: watch HOST:PORT [SEED...]\n";
        return 2;
    }
    try {
        watch(argv[1], {argv + 2, argv + argc});
    } catch (const bruit::error &e) {
        std::cerr << e.what() << '\n';
        return 1;
    }
}
