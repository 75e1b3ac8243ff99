// The tag: tells the service what a visitor does, after consent, and never breaks the page it stands on.
// <script async src="https://HOST/tag.js" data-key="ts_pub_..." data-consent="required"></script>
// Calls before it has loaded are kept by a stub, if the page has one:
// <script>thinslice = { q: [], track: function () { this.q.push(arguments); }, consent: function (c) { this.c = c; } };</script>
((w, d) => {
  try {
    var stub = w.thinslice || {};
    if (stub.ready) return;
    var me = d.currentScript || d.querySelector('script[src*="/tag.js"][data-key]');
    if (!me) return;
    var n = navigator;
    var url = (me.dataset.endpoint || new URL(me.src).origin) + '/v1/events?key=' + encodeURIComponent(me.dataset.key);
    var HALF_HOUR = 18e5, YEAR = 31536e6, LIMIT = 200, BEACON = 2e4;
    var queue = [], flight, timer, pause = 0, until = 0, memory = {}, seen = {};
    var granted, refused;
    decide(me.dataset.consent);

    function quietly(act) {
      return (...all) => {
        try { return act(...all); } catch { /* the shop's page comes first */ }
      };
    }
    function uuid() {
      if (crypto.randomUUID) return crypto.randomUUID();
      var bytes = crypto.getRandomValues(new Uint8Array(16)), text = '';
      for (var i = 0; i < 16; i++) text += (bytes[i] + 256).toString(16).slice(1);
      return text;
    }
    // One value in a first-party cookie and in local storage; in memory when both are blocked.
    function read(name) {
      var found;
      try {
        found = ('; ' + d.cookie).split('; ' + name + '=')[1];
        found = found ? found.split(';')[0] : localStorage.getItem(name);
      } catch { /* blocked */ }
      return found || memory[name];
    }
    function write(name, value, life) {
      memory[name] = value;
      try {
        d.cookie = name + '=' + value + ';path=/;max-age=' + life / 1e3 + ';SameSite=Lax' +
          (location.protocol === 'https:' ? ';Secure' : '');
      } catch { /* blocked */ }
      try {
        if (value) localStorage.setItem(name, value); else localStorage.removeItem(name);
      } catch { /* blocked */ }
    }
    function visitor() {
      var id = read('ts_visitor') || uuid();
      write('ts_visitor', id, YEAR);
      return id;
    }
    // `id.time`: a session ends after half an hour of silence, in all tabs at once.
    function session() {
      var part = (read('ts_session') || '').split('.'), now = Date.now();
      var id = now - part[1] < HALF_HOUR ? part[0] : uuid();
      write('ts_session', id + '.' + now, HALF_HOUR);
      return id;
    }
    function name(event) {
      event.visitor_id = event.visitor_id || visitor();
      event.session_id = event.session_id || session();
      event.consent = 'personalization';
      return event;
    }
    function track(what, fields) {
      if (refused) return;
      var event = { event_id: uuid(), name: what, occurred_at: new Date(), ...fields };
      event.context = { path: location.pathname, ...(n.webdriver && { webdriver: true }), ...event.context };
      event = JSON.parse(JSON.stringify(event)); // what cannot be sent throws here and spoils nothing else
      queue.push(granted ? name(event) : event);
      if (queue.length > (granted ? LIMIT : 50)) queue.shift();
      later(queue.length < 20 ? 2e3 : 0);
    }
    function later(wait) {
      if (wait && timer) return;
      clearTimeout(timer);
      timer = setTimeout(quietly(send), Math.max(wait, until - Date.now()));
    }
    // The next 20 events at most, and fewer when they are long: browsers take 64 kB from a page that goes.
    function cut() {
      var size = 0, i = 0;
      while (i < 20 && i < queue.length && (size += JSON.stringify(queue[i]).length) < BEACON) i++;
      return queue.splice(0, i || 1);
    }
    // The clock goes along, so that the service can set the times of a wrong one right.
    function pack(batch) {
      return JSON.stringify({ sent_at: Date.now(), events: batch });
    }
    function post(body) {
      return fetch(url, { method: 'POST', body: body, keepalive: body.length < BEACON, credentials: 'omit' });
    }
    function send() {
      timer = 0;
      if (!granted || flight || !queue.length) return;
      var batch = flight = cut();
      function over(again) {
        if (flight !== batch) return;
        flight = until = 0;
        if (again) {
          queue = [...batch, ...queue].slice(-LIMIT);
          pause = Math.min(6e4, pause * 2 || 1e3);
          until = Date.now() + pause * (0.7 + 0.6 * Math.random());
        } else pause = 0;
        if (queue.length) later(0);
      }
      post(pack(batch)).then((answer) => over(answer.status > 499 || answer.status === 429), () => over(1));
    }
    // The page hides: what has not been answered goes with a beacon; an id sent twice counts once.
    function leave() {
      if (!granted) return;
      var kept = [], part, body;
      queue = [...(flight || []), ...queue];
      flight = 0;
      while (queue.length) {
        body = pack(part = cut());
        if (!(n.sendBeacon && n.sendBeacon(url, body))) {
          kept.push(...part);
          post(body).catch(() => 0);
        }
      }
      queue = kept;
      if (kept[0]) later(2e3);
    }
    function decide(state) {
      refused = n.globalPrivacyControl || state === 'denied';
      granted = !refused && state === 'granted';
    }
    // Between `required` and `granted` events are held; after anything else than `granted` here, they are dropped.
    function consent(state) {
      decide(state === 'granted' ? state : 'denied');
      if (granted) {
        queue.forEach(name);
        later(0);
      } else {
        queue = [];
        flight = 0;
        write('ts_visitor', '', 0);
        write('ts_session', '', 0);
      }
    }

    function shelf(data) {
      return {
        item_id: data.thinsliceItem, recommendation_id: data.thinsliceRecommendation,
        placement: data.thinslicePlacement, position: data.thinslicePosition && +data.thinslicePosition
      };
    }
    // Seen: half of it visible for half a second, once a slate and item.
    var eye = w.IntersectionObserver && new IntersectionObserver(quietly((entries) => {
      entries.forEach((entry) => {
        var node = entry.target;
        clearTimeout(node.thinsliceTimer);
        if (entry.intersectionRatio < 0.5) return;
        node.thinsliceTimer = setTimeout(quietly(() => {
          var fields = shelf(node.dataset), key = fields.recommendation_id + ' ' + fields.item_id;
          eye.unobserve(node);
          if (seen[key]) return;
          seen[key] = 1;
          track('view_item_list', fields);
        }), 500);
      });
    }), { threshold: 0.5 });
    function look(root) {
      if (!root.querySelectorAll) return;
      [root, ...root.querySelectorAll('[data-thinslice-item],[data-thinslice-view]')].forEach((node) => {
        var data = node.dataset || {}, item = data.thinsliceView;
        if (eye && data.thinsliceRecommendation) eye.observe(node);
        if (item && node.thinsliceViewed !== item) {
          node.thinsliceViewed = item;
          track('view_item', { item_id: item });
        }
      });
    }
    function listen(what, act, on) {
      (on || d).addEventListener(what, quietly(act), true);
    }
    function click(event) {
      var node = event.target.closest('[data-thinslice-recommendation]');
      if (node && event.button < 2) track('select_item', shelf(node.dataset));
    }
    function start() {
      look(d);
      new MutationObserver(quietly((changes) => changes.forEach((change) => change.addedNodes.forEach(look)))).observe(d, { childList: true, subtree: true });
    }

    w.thinslice = {
      ready: true, track: quietly(track), consent: quietly(consent), flush: quietly(send),
      get visitor() { return granted ? visitor() : null; }
    };
    listen('click', click);
    listen('auxclick', click);
    listen('visibilitychange', () => d.hidden && leave());
    listen('pagehide', leave, w);
    if (d.prerendering) listen('prerenderingchange', start);
    else if (d.readyState === 'loading') listen('DOMContentLoaded', start);
    else quietly(start)();
    (stub.q || []).forEach((call) => track(...call));
    if (stub.c) consent(stub.c);
  } catch { /* a shop without recommendations is still a shop */ }
})(window, document);
