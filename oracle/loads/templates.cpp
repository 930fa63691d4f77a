// Takes the compiler through templates, overloads, lambdas and exceptions of the standard library.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Number : Number<N - 1> {
    using Base = Number<N - 1>;
    std::vector<std::tuple<std::integral_constant<int, N>, std::string>> values;
    template <class F> auto visit(F f) const {
        for (const auto &value : values)
            f(value);
        return Base::visit(f) + N;
    }
};
template <> struct Number<0> {
    template <class F> int visit(F) const { return 0; }
};

template <class... Types> struct Registry {
    std::tuple<std::map<std::string, Types>...> maps;
    template <class T> T &get(const std::string &name) {
        auto &map = std::get<std::map<std::string, T>>(maps);
        auto found = map.find(name);
        if (found == map.end())
            throw std::out_of_range(name);
        return found->second;
    }
};

using Value = std::variant<int, double, std::string, std::vector<int>, std::shared_ptr<Number<3>>>;

std::string show(const Value &value) {
    return std::visit(
        [](const auto &held) -> std::string {
            std::ostringstream out;
            if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::vector<int>>)
                out << std::accumulate(held.begin(), held.end(), 0);
            else if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::shared_ptr<Number<3>>>)
                out << held->visit([](const auto &) {});
            else
                out << held;
            return out.str();
        },
        value);
}

int main(int argc, char **argv) {
    Registry<int, double, std::string, std::vector<std::string>, std::optional<std::set<int>>> registry;
    Number<12> numbers;
    std::unordered_map<std::string, std::function<int(int)>> functions;
    functions["twice"] = [](int x) { return 2 * x; };
    functions["visit"] = [&numbers](int x) { return numbers.visit([](const auto &) {}) + x; };
    std::regex words("(\\w+)\\s+(\\w+)");
    std::vector<Value> values{1, 2.0, std::string("three"), std::vector<int>{4, 5}, std::make_shared<Number<3>>()};
    std::sort(values.begin(), values.end(), [](const Value &a, const Value &b) { return show(a) < show(b); });
    std::smatch match;
    for (int i = 0; i < argc; ++i) {
        std::string argument = argv[i];
        if (std::regex_search(argument, match, words))
            registry.get<std::string>(match[1]) = match[2];
        try {
            registry.get<int>(argument) += functions.at(argument)(i);
        } catch (const std::out_of_range &error) {
            std::cerr << error.what() << '\n';
        }
    }
    for (const auto &value : values)
        std::cout << show(value) << '\n';
}
