// What programs in JavaScript do all day, over and over: much of it in C++ and in V8's builtins.
const crypto = require('crypto');
const zlib = require('zlib');

const words = Array.from({ length: 5000 }, (_, i) => 'w' + (i * 7919 % 10007));
const text = words.join(' ');

function round() {
  JSON.parse(JSON.stringify(words.map((w, i) => ({ w, i, k: [i, w] }))));
  words.slice().sort((a, b) => (a < b ? -1 : 1));
  text.match(/w(\d+)5\b/g);
  text.replace(/w\d/g, (m) => m.toUpperCase());
  zlib.deflateSync(text);
  crypto.createHash('sha256').update(text).digest('hex');
  [...new Map(words.map((w) => [w, w.length])).values()].reduce((n, length) => n + length, 0);
  let n = 0n;
  for (let i = 0; i < 500; i++) n = n * 3n + 1n;
}

(async () => {
  for (;;) {
    round();
    await new Promise(setImmediate);
  }
})();
