// The tag: tells the service what a visitor does, after consent, and never breaks the page it stands on.
// <script async src="https://HOST/tag.js" data-key="ts_pub_..." data-consent="required"></script>
(function (w, d) {
  try {
    var stub = w.thinslice;
    if (stub && stub.ready) return;
    var me = d.currentScript || d.querySelector('script[src*="/tag.js"][data-key]');
    if (!me) return;
    var n = navigator;
    var url = (me.dataset.endpoint || new URL(me.src).origin) + '/v1/events?key=' + encodeURIComponent(me.dataset.key);
    var off = n.globalPrivacyControl === true;
    var granted = me.dataset.consent === 'granted' && !off;
    var HALF_HOUR = 18e5, YEAR = 31536e6, LIMIT = 200;
    var queue = [], flight = null, timer = 0, pause = 0, memory = {}, seen = {};

    function quietly(act) {
      return function () {
        try { return act.apply(this, arguments); } catch (error) { /* the shop's page comes first */ }
      };
    }
    function uuid() {
      if (w.crypto && crypto.randomUUID) return crypto.randomUUID();
      var bytes = crypto.getRandomValues(new Uint8Array(16)), text = '';
      for (var i = 0; i < 16; i++) text += (bytes[i] + 256).toString(16).slice(1);
      return text;
    }
    // One value in a first-party cookie and in local storage; in memory when both are blocked.
    function read(name) {
      var found = ('; ' + d.cookie).split('; ' + name + '=')[1];
      if (found) return found.split(';')[0];
      try { found = localStorage.getItem(name); } catch (error) { found = null; }
      return found || memory[name];
    }
    function write(name, value, life) {
      memory[name] = value;
      try {
        d.cookie = name + '=' + (value || '') + ';path=/;max-age=' + (value ? life / 1e3 : 0) + ';SameSite=Lax' +
          (location.protocol === 'https:' ? ';Secure' : '');
      } catch (error) { /* blocked */ }
      try {
        if (value) localStorage.setItem(name, value); else localStorage.removeItem(name);
      } catch (error) { /* blocked */ }
    }
    function visitor() {
      var id = read('ts_visitor') || uuid();
      write('ts_visitor', id, YEAR);
      return id;
    }
    // `id.time`: a session ends after half an hour of silence, in all tabs at once.
    function session() {
      var part = (read('ts_session') || '').split('.'), now = Date.now();
      var id = part[0] && now - part[1] < HALF_HOUR ? part[0] : uuid();
      write('ts_session', id + '.' + now, HALF_HOUR);
      return id;
    }
    function name(event) {
      if (!event.visitor_id) event.visitor_id = visitor();
      if (!event.session_id) event.session_id = session();
      event.consent = 'personalization';
      return event;
    }
    function track(what, fields) {
      if (off) return;
      var event = { event_id: uuid(), name: what, occurred_at: new Date().toISOString() };
      for (var field in fields) event[field] = fields[field];
      event.context = Object.assign({ path: location.pathname }, n.webdriver && { webdriver: true }, event.context);
      queue.push(granted ? name(event) : event);
      if (queue.length > (granted ? LIMIT : 50)) queue.shift();
      if (granted) later(queue.length < 20 ? 2e3 : 0);
    }
    function later(wait) {
      if (pause) return;
      clearTimeout(timer);
      timer = setTimeout(quietly(send), wait);
    }
    function send() {
      if (!granted || flight || !queue.length) return;
      var batch = flight = queue.splice(0, 20);
      function over(again) {
        if (flight !== batch) return;
        flight = null;
        if (again && granted) {
          queue = batch.concat(queue).slice(-LIMIT);
          pause = Math.min(6e4, (pause || 5e2) * 2);
          timer = setTimeout(quietly(function () { timer = 0; send(); }), pause * (0.7 + 0.6 * Math.random()));
        } else {
          pause = 0;
          if (queue.length) later(0);
        }
      }
      fetch(url, {
        method: 'POST', body: JSON.stringify(batch), keepalive: true, credentials: 'omit',
        headers: { 'Content-Type': 'text/plain' }
      }).then(function (answer) { over(answer.status > 499 || answer.status === 429); }, function () { over(true); });
    }
    // The page hides: what has not been answered goes with a beacon; an id sent twice counts once.
    function leave() {
      if (!granted) return;
      var all = (flight || []).concat(queue);
      flight = null;
      queue = [];
      for (var i = 0; i < all.length; i += 20) {
        var part = all.slice(i, i + 20), body = JSON.stringify(part);
        if (!(n.sendBeacon && n.sendBeacon(url, body))) {
          queue = queue.concat(part);
          if (body.length < 6e4) fetch(url, { method: 'POST', body: body, keepalive: true, credentials: 'omit' });
        }
      }
    }
    function consent(state) {
      granted = state === 'granted' && !off;
      if (granted) {
        queue.forEach(name);
        look(d);
        later(0);
      } else {
        clearTimeout(timer);
        queue = [];
        flight = null;
        pause = 0;
        write('ts_visitor');
        write('ts_session');
      }
    }

    function shelf(node) {
      var data = node.dataset, at = data.thinslicePosition;
      var fields = { item_id: data.thinsliceItem, recommendation_id: data.thinsliceRecommendation };
      if (data.thinslicePlacement) fields.placement = data.thinslicePlacement;
      if (at) fields.position = +at;
      return fields;
    }
    // Seen: half of it visible for half a second, once a slate and item.
    var eye = w.IntersectionObserver && new IntersectionObserver(quietly(function (entries) {
      entries.forEach(function (entry) {
        var node = entry.target;
        clearTimeout(node.thinsliceTimer);
        if (entry.intersectionRatio < 0.5) return;
        node.thinsliceTimer = setTimeout(quietly(function () {
          eye.unobserve(node);
          var fields = shelf(node), key = fields.recommendation_id + ' ' + fields.item_id;
          if (seen[key]) return;
          seen[key] = 1;
          track('view_item_list', fields);
        }), 500);
      });
    }), { threshold: 0.5 });
    function look(root) {
      if (!root.querySelectorAll) return;
      root.querySelectorAll('[data-thinslice-recommendation]').forEach(function (node) { if (eye) eye.observe(node); });
      root.querySelectorAll('[data-thinslice-view]').forEach(function (node) {
        if (node.thinsliceViewed) return;
        node.thinsliceViewed = 1;
        track('view_item', { item_id: node.dataset.thinsliceView });
      });
    }

    w.thinslice = {
      ready: true, track: quietly(track), consent: quietly(consent), flush: quietly(send),
      get visitor() { return granted ? visitor() : null; }
    };
    d.addEventListener('click', quietly(function (event) {
      var node = event.target.closest('[data-thinslice-recommendation]');
      if (node) track('select_item', shelf(node));
    }), true);
    d.addEventListener('visibilitychange', quietly(function () { if (d.visibilityState === 'hidden') leave(); }));
    w.addEventListener('pagehide', quietly(leave));
    var start = quietly(function () {
      look(d);
      if (w.MutationObserver) {
        new MutationObserver(quietly(function (changes) {
          changes.forEach(function (change) {
            change.addedNodes.forEach(function (node) { if (node.parentNode) look(node.parentNode); });
          });
        })).observe(d.documentElement, { childList: true, subtree: true });
      }
    });
    if (d.readyState === 'loading') d.addEventListener('DOMContentLoaded', start); else start();
    ((stub && stub.q) || []).forEach(function (call) { track.apply(null, call); });
  } catch (error) { /* a shop without recommendations is still a shop */ }
})(window, document);
