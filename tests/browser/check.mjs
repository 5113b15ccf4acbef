// Opens a page in headless Chromium as people do, in light and dark, narrow and on paper, and says
// what is wrong with it: one JSON object on standard output, exit code 1 where something is.
//
//   node check.mjs MODULES PAGE.html OUT
//
// MODULES holds node_modules with playwright-core and axe-core; screenshots and the PDF go to OUT.

import { createRequire } from "node:module";
import { readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, page_file, out] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(modules, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const browser_path = process.env.CHROMIUM ?? "/usr/bin/chromium";
const flags = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const views = {
  light: { colorScheme: "light", viewport: { width: 1280, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  narrow: { colorScheme: "light", viewport: { width: 375, height: 800 } },
};
const wrong = [];

/** A page of its own context, with whatever it logs, throws or asks for collected. */
async function open(browser, name, url, bypassCSP) {
  const context = await browser.newContext({ ...views[name], bypassCSP });
  const page = await context.newPage();
  page.on("console", (message) => wrong.push(`${name}: console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`${name}: error: ${error}`));
  page.on("request", (request) => {
    if (request.url() !== url) wrong.push(`${name}: request: ${request.url().slice(0, 200)}`);
  });
  await page.goto(url);
  return page;
}

async function check_accessibility(page, name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  for (const { id, impact, nodes } of violations) {
    const text = `${name}: axe: ${impact}: ${id}: ${nodes.length} of ${nodes[0].target}`;
    if (impact === "serious" || impact === "critical") wrong.push(text);
    else console.error(text);
  }
}

/** Every scroll region, link and summary must be met by the tab key, with a visible outline. */
async function check_keyboard(page) {
  await page.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
  const wanted = await page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], summary, .scroll")];
    all.forEach((element, number) => (element.dataset.number = number));
    return all.length;
  });
  const met = new Set();
  for (let press = 0; press < wanted + 1; press += 1) {
    await page.keyboard.press("Tab");
    const [number, outlined] = await page.evaluate(() => {
      const element = document.activeElement;
      return [element.dataset.number, getComputedStyle(element).outlineStyle !== "none"];
    });
    if (number === undefined) break;
    met.add(number);
    if (!outlined) wrong.push(`keyboard: no outline on element ${number}`);
  }
  if (met.size !== wanted) wrong.push(`keyboard: ${met.size} of ${wanted} elements met`);
  return wanted;
}

/** Nothing but scroll regions may be wider than the window. */
async function check_width(page, name) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (over > 0) wrong.push(`${name}: the page is ${over} px wider than the window`);
}

const browser = await chromium.launch({ executablePath: browser_path, headless: true, args: flags });
const url = pathToFileURL(page_file).href;
let keyboard = 0;
for (const name of Object.keys(views)) {
  // The page forbids scripts, and axe-core is one: here its policy is lifted.
  const page = await open(browser, name, url, true);
  await check_width(page, name);
  await page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
  await check_accessibility(page, name);
  if (name === "light") keyboard = await check_keyboard(page);
  await page.context().close();
}
const paper = await open(browser, "dark", url, false); // paper is white whatever the screen is
const pdf = await paper.pdf({ path: join(out, "paper.pdf"), format: "A4", preferCSSPageSize: true });
if (pdf.subarray(0, 5).toString() !== "%PDF-") wrong.push("print: no PDF");
const pages = pdf.toString("latin1").match(/\/Type\s*\/Page\b/g)?.length ?? 0;
await browser.close();
const bytes = statSync(page_file).size;
if (bytes > 3_000_000) wrong.push(`size: ${bytes} bytes`);
console.log(JSON.stringify({ bytes, pages, keyboard, wrong }));
process.exitCode = wrong.length ? 1 : 0;
