export interface Item { label: string; key?: string; run(): void }

/** Opens a menu at a place of the window. It goes away when something is chosen, by Escape, and when the focus leaves it; done is called then. */
export function openMenu(within: HTMLElement, label: string, items: Item[], x: number, y: number, done: () => void): () => void {
  const menu = document.createElement("div");
  menu.className = "fg-menu";
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", label);
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    menu.remove();
    done();
  };
  const buttons = items.map((item) => {
    const b = document.createElement("button");
    b.type = "button";
    b.tabIndex = -1;
    b.setAttribute("role", "menuitem");
    b.append(item.label);
    if (item.key) {
      const k = document.createElement("kbd");
      k.textContent = item.key;
      k.setAttribute("aria-hidden", "true");
      b.append(k);
      b.setAttribute("aria-keyshortcuts", item.key);
    }
    b.addEventListener("click", () => {
      close();
      item.run();
    });
    b.addEventListener("pointerenter", () => b.focus());
    menu.append(b);
    return b;
  });
  menu.addEventListener("keydown", (e) => {
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement), n = buttons.length;
    const to = { ArrowDown: (at + 1) % n, ArrowUp: (at - 1 + n) % n, Home: 0, End: n - 1 }[e.key];
    if (to !== undefined) buttons[to]!.focus();
    else if (e.key === "Escape" || e.key === "Tab") close();
    else if (e.key !== "Enter" && e.key !== " ") return;
    if (e.key !== "Enter" && e.key !== " ") e.preventDefault();
    e.stopPropagation();
  });
  menu.addEventListener("focusout", (e) => {
    if (!menu.contains(e.relatedTarget as Node | null)) close();
  });
  menu.addEventListener("contextmenu", (e) => e.preventDefault());
  within.append(menu);
  const box = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(4, Math.min(x, innerWidth - box.width - 4))}px`;
  menu.style.top = `${Math.max(4, Math.min(y, innerHeight - box.height - 4))}px`;
  buttons[0]?.focus();
  return close;
}
