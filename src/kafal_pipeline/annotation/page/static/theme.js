"use strict";
// Dark or light as the system says, until somebody chooses; before the first paint, so that nothing flashes.

function kept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // it is asked for again the next time
  }
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function changeTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  keep("theme", document.documentElement.dataset.theme);
}

if (["dark", "light"].includes(kept("theme"))) document.documentElement.dataset.theme = kept("theme");
