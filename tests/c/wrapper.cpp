// include/bruit.hpp: lifetimes, errors, and exceptions in callbacks.
#include <bruit.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <unistd.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1); \
        } \
    } while (0)

using namespace std::chrono_literals;

static_assert(!std::is_copy_constructible_v<bruit::config> && std::is_nothrow_move_constructible_v<bruit::config>);
static_assert(!std::is_copy_constructible_v<bruit::node> && std::is_nothrow_move_constructible_v<bruit::node>);
static_assert(!std::is_copy_constructible_v<bruit::members> && std::is_nothrow_move_constructible_v<bruit::members>);
static_assert(std::is_nothrow_move_assignable_v<bruit::node> && std::is_nothrow_move_assignable_v<bruit::runtime>);
static_assert(std::is_base_of_v<std::system_error, bruit::error>);

static bruit::config local(const char *name, const char *dispatch = "thread") {
    bruit::config config;
    config.set("profile", "local").set("name", name).set("bind", "127.0.0.1:0").set("dispatch", dispatch);
    return config;
}

template <class Call> static int code_of(Call call) {
    try {
        call();
    } catch (const bruit::error &e) {
        CHECK(&e.code().category() == &bruit::category());
        CHECK(std::string(e.what()).size() > 0);
        return e.code().value();
    }
    return 0;
}

// Counts, and lets a test wait.
struct counter {
    std::mutex lock;
    std::condition_variable more;
    int count = 0;

    void add() {
        std::lock_guard<std::mutex> guard(lock);
        count++;
        more.notify_all();
    }
    void reach(int wanted) {
        std::unique_lock<std::mutex> guard(lock);
        CHECK(more.wait_for(guard, 60s, [&] { return count >= wanted; }));
    }
};

static void errors_are_exceptions() {
    bruit::config config = local("errors");
    CHECK(code_of([&] { config.set("no_such_option", "1"); }) == BRUIT_E_NOT_FOUND);
    CHECK(code_of([&] { config.set("probe_interval", "soon"); }) == BRUIT_E_INVALID);
    CHECK(code_of([&] { config.key("short"); }) == BRUIT_E_INVALID);
    CHECK(code_of([&] { config.load("/nonexistent"); }) == BRUIT_E_IO);
    try {
        config.load("/nonexistent");
    } catch (const bruit::error &e) {
        CHECK(e.os() == ENOENT);
    }
    CHECK(config.get("name") == "errors");
    std::string longer(200, 'x'); // more than the wrapper's first buffer
    config.set("name", longer);
    CHECK(config.get("name") == longer);
    bruit::config copy = config.dup();
    config.set("name", "errors");
    CHECK(copy.get("name") == longer);

    bruit::node node(config);
    CHECK(node.name() == "errors");
    CHECK(code_of([&] { node.address(); }) == BRUIT_E_STATE);
    node.free();
    CHECK(code_of([&] { node.state(); }) == BRUIT_E_HANDLE);
}

static void members_are_a_range() {
    bruit::runtime shared;
    bruit::node a(local("a").runtime(shared).meta("role", "db"));
    bruit::node b(local("b").runtime(shared).meta("role", "web").meta("empty", ""));
    counter joined;
    a.on_event(BRUIT_EVENT_JOIN, [&](const bruit::event &event) {
        CHECK(event.name() == "JOIN" && event.member()->name() == "b" && !event.before());
        joined.add();
    });
    a.start();
    b.start();
    CHECK(b.join({a.address()}, 60s) == 1);
    joined.reach(1);
    bruit::members members = a.members();
    std::string names;
    for (bruit::member member : members)
        names += std::string(member.name()) + "@" + std::string(member.address()) + " ";
    CHECK(names == "a@" + a.address() + " b@" + b.address() + " ");
    CHECK(members.size() == 2 && members.local().name() == "a" && members.local().is_local());
    CHECK(members.find("b")->meta("role") == "web");
    CHECK(members.find("b")->meta("empty") == "" && !members.find("b")->meta("none"));
    CHECK(members.find("b")->meta().size() == 2 && members.find("b")->meta()[1].first == "role");
    CHECK(!members.find("c"));
    CHECK(members.with("role=db").size() == 1 && members.with("role").size() == 2);

    counter updated;
    a.on_event(BRUIT_EVENT_UPDATE, [&](const bruit::event &event) {
        CHECK((event.changed() & BRUIT_CHANGED_META) != 0 && event.before());
        if (event.member()->meta("role") == "cache" && !event.member()->meta("empty"))
            updated.add();
    });
    b.set_meta({{"role", "cache"}, {"empty", std::nullopt}});
    updated.reach(1);
    CHECK(a.stats().packets_in > 0 && a.stat("packets_in") > 0 && a.view() >= members.view());

    bruit::node moved = std::move(a); // subscriptions move with it
    CHECK(moved.state() == BRUIT_NODE_RUNNING);
    CHECK(moved.stop());
    members = moved.members();
    moved.free();
    CHECK(members.local().name() == "a");
}

static void events_can_be_dispatched_or_pulled() {
    bruit::node a(local("a", "manual")), b(local("b", "manual")), c(local("c"));
    int joins = 0;
    a.on_event(BRUIT_EVENT_JOIN, [&](const bruit::event &) { joins++; });
    a.start();
    b.start();
    c.start();
    CHECK(a.event_fd() >= 0);
    CHECK(c.join({a.address()}, 60s) == 1);
    while (joins == 0)
        if (a.wait(60s))
            a.dispatch();
    CHECK(c.join({b.address()}, 60s) == 1);
    for (;;) {
        std::optional<bruit::taken_event> event = b.next_event();
        if (event && event->kind() == BRUIT_EVENT_JOIN)
            break;
        if (!event)
            b.wait(60s);
    }
    b.wakeup();
    CHECK(code_of([&] { c.dispatch(); }) == BRUIT_E_STATE);
}

static void exceptions_stay_out_of_bruit() {
    counter handled, logged, ended;
    bruit::config config = local("throws");
    config.on_log(BRUIT_LEVEL_ERROR, [&](int level, std::string_view target, std::string_view text) {
        if (target == "callback" && level == BRUIT_LEVEL_ERROR && text.find("no good") != std::string_view::npos)
            logged.add();
        throw std::runtime_error("from the log");
    });
    bruit::node node(config), peer(local("peer")), other(local("other"));
    struct last {
        counter *ended;
        ~last() { ended->add(); }
    };
    auto marker = std::make_shared<last>(last{&ended});
    ended.count = 0; // the temporary of the line above
    std::uint64_t subscription = node.on_event(BRUIT_EVENT_JOIN, [marker](const bruit::event &) { throw std::runtime_error("no good"); });
    marker.reset();
    node.start();
    peer.start();
    other.start();
    node.join({peer.address()}, 60s); // without a handler: to the log
    logged.reach(1);
    node.on_exception([&](std::exception_ptr thrown) {
        CHECK(thrown != nullptr);
        handled.add();
        throw 1;
    });
    node.join({other.address()}, 60s);
    handled.reach(1);
    node.unsubscribe(subscription);
    ended.reach(1);
    CHECK(ended.count == 1);
}

static void the_destructor_releases() {
    counter freed;
    struct guard {
        counter *freed;
        explicit guard(counter *c) : freed(c) {}
        ~guard() { freed->add(); }
    };
    bruit_node *raw = nullptr;
    {
        bruit::node node(local("scoped"));
        node.on_event(BRUIT_EVENT_ALL, [held = std::make_shared<guard>(&freed)](const bruit::event &) {});
        node.start();
        raw = node.raw();
    }
    CHECK(bruit_node_state(raw) == BRUIT_E_HANDLE);
    freed.reach(1);
    // A failed registration leaves nothing behind, and frees once.
    bruit::node node(local("fails"));
    CHECK(code_of([&] { node.on_event(0, [held = std::make_shared<guard>(&freed)](const bruit::event &) {}); }) == BRUIT_E_INVALID);
    CHECK(freed.count == 2);
}

static void many_are_asked_and_several_are_told() {
    counter told, joined;
    bruit::node a(local("a")), b(local("b")), c(local("c"));
    a.on_event(BRUIT_EVENT_JOIN, [&](const bruit::event &) { joined.add(); });
    for (bruit::node *node : {&b, &c}) {
        node->on_message("name", [node, &told](const bruit::message &message) {
            if (message.is_request())
                message.reply(node->name());
            else
                told.add();
        });
    }
    a.start();
    for (bruit::node *node : {&b, &c}) {
        node->start();
        CHECK(node->join({a.address()}, 60s) == 1);
    }
    joined.reach(2);
    std::string said;
    counter ended;
    auto hear = [&](const bruit::answer &answer) {
        if (answer.kind() == BRUIT_ANSWER_END) {
            CHECK(answer.status() == BRUIT_OK && answer.raw()->asked == answer.raw()->answered);
            ended.add();
        } else if (answer.kind() == BRUIT_ANSWER_REPLY) {
            CHECK(answer.sender() == answer.data());
            said += answer.data();
        }
    };
    bruit::query question{"name", "?"};
    question.timeout = 60s;
    a.query(question, hear);
    ended.reach(1);
    CHECK(said == "bc" || said == "cb");
    said.clear();
    question.names = {"c"};
    question.relay = 1;
    a.query(question, hear);
    ended.reach(2);
    CHECK(said == "c");
    question.relay = 9;
    CHECK(code_of([&] { a.query(question, hear); }) == BRUIT_E_INVALID);
    CHECK(code_of([&] { a.cancel(12345); }) == BRUIT_E_NOT_FOUND);

    std::vector<int> each = a.send_to_each({"b", "nobody", "c"}, "name", "hello");
    CHECK(each == (std::vector<int>{BRUIT_OK, BRUIT_E_NOT_FOUND, BRUIT_OK}));
    told.reach(2);
    c.free();
    b.free();
    a.free();
}

static void messages_are_sent_asked_and_answered() {
    bruit::node a(local("a")), b(local("b"));
    counter heard, thrown;
    std::optional<bruit::kept_message> kept;
    b.on_exception([&](std::exception_ptr) { thrown.add(); });
    b.on_message("note", [&](const bruit::message &message) {
        CHECK(message.sender() == "a" && message.data() == "hello" && !message.is_request());
        kept = message.keep();
        heard.add();
    });
    b.on_message("add", [](const bruit::message &message) { message.reply(std::string(message.data()) + "!"); });
    b.on_message("throws", [](const bruit::message &) { throw std::runtime_error("no such table"); });
    b.start();
    a.start();
    a.join({b.address()}, 60s);
    a.send("b", "note", "hello");
    heard.reach(1);
    CHECK(a.request("b", "add", "more", 60s).data() == "more!");
    CHECK(code_of([&] { a.request("b", "nobody", "", 60s); }) == BRUIT_E_NO_HANDLER);
    try {
        a.request("b", "throws", "", 60s);
        CHECK(false);
    } catch (const bruit::error &refused) {
        CHECK(refused.code().value() == BRUIT_E_REMOTE && std::string(refused.what()).find("no such table") != std::string::npos);
    }
    thrown.reach(1);
    b.on_validate("judged", [](const bruit::message &message) {
        if (message.data() == "throws")
            throw std::runtime_error("what is that?");
        return message.data() == "good";
    });
    b.on_message("judged", [&](const bruit::message &message) {
        CHECK(message.data() == "good");
        heard.add();
    });
    for (const char *words : {"bad", "throws", "good"})
        a.broadcast("judged", words, BRUIT_ORDERED | BRUIT_WAIT);
    heard.reach(2);
    thrown.reach(2);
    b.set_meta({{"role", "db"}});
    while (a.send_to_holders("role=db", "note", "hello") == 0)
        std::this_thread::yield();
    heard.reach(2);
    b.free();
    CHECK(kept->data() == "hello");
}

void streams_are_closed_by_their_destructor() {
    bruit::node a(local("a")), b(local("b"));
    b.on_stream("upper", [](bruit::stream stream) {
        std::string all = stream.read_all();
        for (char &c : all)
            c = static_cast<char>(c - 'a' + 'A');
        stream.write_all(all);
    });
    b.start();
    a.start();
    a.join({b.address()}, 60s);
    bruit::stream stream = a.open_stream("b", "upper", BRUIT_COMPRESS);
    CHECK(stream && stream.peer() == "b" && stream.topic() == "upper" && stream.fd() >= 0);
    stream.write_all("hello");
    stream.shutdown();
    CHECK(stream.read_all() == "HELLO");
    bruit::stream moved = std::move(stream);
    CHECK(moved && !stream);
    bruit::stream deaf = a.open_stream("b", "nobody");
    char byte;
    CHECK(code_of([&] { deaf.read(&byte, 1, 60s); }) == BRUIT_E_NO_HANDLER);
}

int main() {
    alarm(300);
    messages_are_sent_asked_and_answered();
    streams_are_closed_by_their_destructor();
    many_are_asked_and_several_are_told();
    errors_are_exceptions();
    members_are_a_range();
    events_can_be_dispatched_or_pulled();
    exceptions_stay_out_of_bruit();
    the_destructor_releases();
}
