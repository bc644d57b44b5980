// Chat, in C++17: what is typed goes to all members. A line "@name words" goes to that member alone, and "?" asks who is there.
//
//     ./chat ann 127.0.0.1:0                       prints: ann is at 127.0.0.1:40123
//     ./chat ben 127.0.0.1:0 127.0.0.1:40123       in another terminal
#include <bruit.hpp>

#include <iostream>
#include <mutex>

// Callbacks run on a thread of bruit's, and so does not what is typed: a line is written as one.
static void print(const std::string &line) {
    static std::mutex lock;
    std::lock_guard<std::mutex> guard(lock);
    std::cout << line << std::endl;
}

static void hear(const bruit::message &message) {
    if (message.is_request())
        message.reply("here");
    else
        print(std::string(message.sender()) + ": " + std::string(message.data()));
}

static void come_and_go(const bruit::event &event) {
    if (auto member = event.member())
        print("* " + std::string(member->name()) + (event.kind() == BRUIT_EVENT_JOIN ? " is here" : " is gone"));
}

static void say(bruit::node &node, const std::string &line) {
    std::size_t space = line.find(' ');
    if (line == "?") {
        node.query({"chat", "who is there?"}, [](const bruit::answer &answer) {
            if (answer.kind() == BRUIT_ANSWER_END)
                print("* " + std::to_string(answer.raw()->answered) + " of " + std::to_string(answer.raw()->asked) + " say that they are here");
        });
    } else if (line[0] == '@' && space != std::string::npos) {
        node.send(line.substr(1, space - 1), "chat", line.substr(space + 1));
    } else {
        // Waits where the others have yet to take what was said before.
        node.broadcast("chat", line, BRUIT_WAIT);
    }
}

static void chat(const std::string &name, const std::string &bind, const std::vector<std::string> &seeds) {
    bruit::config config;
    config.set("name", name).set("bind", bind);
    for (const std::string &seed : seeds)
        config.seed(seed);
    bruit::node node(config);
    node.on_message("chat", hear);
    node.on_event(BRUIT_EVENT_JOIN | BRUIT_EVENT_LEFT | BRUIT_EVENT_DEAD, come_and_go);
    node.start();
    print(name + " is at " + node.address());
    for (std::string line; std::getline(std::cin, line);) {
        try {
            if (!line.empty())
                say(node, line);
        } catch (const bruit::error &e) {
            print(std::string("* ") + e.what());
        }
    }
    node.leave(std::chrono::seconds(2));
    node.free();
}

int main(int argc, char **argv) {
    if (argc < 3) {
        std::cerr << "usage: chat NAME HOST:PORT [SEED...]\n";
        return 2;
    }
    try {
        chat(argv[1], argv[2], {argv + 3, argv + argc});
    } catch (const bruit::error &e) {
        std::cerr << e.what() << '\n';
        return 1;
    }
}
