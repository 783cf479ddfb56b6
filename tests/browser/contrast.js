// Every piece of text that is seen, with the contrast of its colour against what lies behind it.
(() => {
  const parse = (color) => {
    const numbers = color.match(/[\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => {
      const share = c / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, alpha } = parse(getComputedStyle(at).backgroundColor);
      if (alpha > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const checked = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    const box = element.getBoundingClientRect();
    if (!text || box.width < 2 || element.closest("script, style, #tip")) continue;
    const style = getComputedStyle(element);
    const inDrawing = element.closest("svg");
    const onCell = inDrawing && ["#ffffff", "#000000"].includes(element.getAttribute("fill"));
    if (onCell) continue; // on a coloured cell: tested where it is drawn
    const color = parse(inDrawing ? style.fill : style.color).rgb;
    const [dark, light] = [luminance(color), luminance(ground(element))].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    checked.push({ text, contrast: (light + 0.05) / (dark + 0.05), needed: isLarge ? 3 : 4.5 });
  }
  return checked;
})()
