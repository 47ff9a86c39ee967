"use strict";
// The classes as buttons with keys, and, where there are many, a box that finds them by their names.

const DIGITS = "1234567890";

class Choices {
  /** `choose` gets the name of the class that somebody takes. */
  constructor(list, filter, choose) {
    this.list = list;
    this.filter = filter;
    this.choose = choose;
    this.names = [];
    this.buttons = new Map();
    filter.addEventListener("input", () => this.#find());
    filter.addEventListener("keydown", (event) => this.#key(event));
  }

  get many() {
    return this.names.length > DIGITS.length;
  }

  /** Show these classes; classes that are digits themselves have their own keys. */
  set(names) {
    if (JSON.stringify(names) === JSON.stringify(this.names)) return;
    this.names = names;
    const digits = names.every((name) => /^[0-9]$/.test(name));
    this.keys = new Map(names.slice(0, DIGITS.length).map((name, place) => [digits ? name : DIGITS[place], name]));
    const keyOf = new Map([...this.keys].map(([key, name]) => [name, key]));
    this.buttons = new Map(names.map((name) => [name, this.#button(name, keyOf.get(name))]));
    this.list.replaceChildren(...this.buttons.values());
    this.list.classList.toggle("long", names.length > 7);
    this.list.classList.toggle("many", this.many);
    this.filter.hidden = !this.many;
    this.filter.value = "";
  }

  /** Mark the class that has been answered; null for none. */
  mark(label) {
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === label));
  }

  enable(yes) {
    for (const button of this.buttons.values()) button.disabled = !yes;
  }

  /** Show all classes again. */
  clear() {
    if (!this.filter.value) return;
    this.filter.value = "";
    this.#find();
    this.list.scrollTop = 0;
  }

  #button(name, key) {
    const button = document.createElement("button");
    if (key) {
      const shown = document.createElement("kbd");
      shown.textContent = key;
      button.append(shown);
      button.setAttribute("aria-keyshortcuts", key);
    }
    const text = document.createElement("span");
    text.textContent = name;
    button.append(text);
    button.title = name;
    button.addEventListener("click", () => this.choose(name));
    return button;
  }

  /** Return the classes that fit what is typed: those that begin with it first, then those with a word that does. */
  #fitting() {
    const typed = this.filter.value.trim().toLocaleLowerCase();
    const rank = (name) => {
      const place = name.toLocaleLowerCase().indexOf(typed);
      if (place < 0) return 3;
      return place === 0 ? 0 : /[\s_-]/.test(name[place - 1]) ? 1 : 2;
    };
    const ranked = this.names.map((name) => [rank(name), name]).filter(([found]) => found < 3);
    return ranked.sort(([first], [second]) => first - second).map(([, name]) => name);
  }

  #find() {
    const fitting = this.#fitting();
    this.list.replaceChildren(...fitting.map((name) => this.buttons.get(name)));
    for (const button of this.buttons.values()) button.classList.remove("first");
    if (this.filter.value && fitting.length) this.buttons.get(fitting[0]).classList.add("first");
    this.filter.setAttribute("aria-invalid", String(!fitting.length));
  }

  #key(event) {
    if (event.key === "Escape") {
      this.clear();
      this.filter.blur();
      event.preventDefault();
    } else if (event.key === "Enter" && !event.repeat && !event.isComposing && this.filter.value.trim()) {
      const [first] = this.#fitting();
      if (first !== undefined) this.choose(first);
    }
    event.stopPropagation();
  }
}
