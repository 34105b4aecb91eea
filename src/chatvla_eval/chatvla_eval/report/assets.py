# SPDX-License-Identifier: Apache-2.0
"""Style and script of the report, both inside the page: it opens offline, in light and dark, on a phone too."""

from __future__ import annotations

from chatvla_eval.plots.svg import THEME_CSS

__all__ = ["FILTER_SCRIPT", "STYLE", "THEME_SCRIPT"]

STYLE = (
    THEME_CSS
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,Segoe UI,Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.45rem;line-height:1.25;margin:0 0 4px}
h2{font-size:1.1rem;margin:28px 0 8px}
p{margin:4px 0}
.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:middle}
th{font-weight:600}
td.num{white-space:nowrap}
td.bar{width:38%}
td.bar svg{display:block;width:100%;height:18px}
.scroll{overflow-x:auto}
.scroll+.scroll{margin-top:20px}
.tools{position:sticky;top:0;background:var(--paper);padding:10px 0;display:flex;flex-wrap:wrap;gap:8px;
align-items:center;border-bottom:1px solid var(--line);z-index:1}
.tools button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--line);border-radius:6px;
padding:6px 12px;min-height:36px;cursor:pointer}
.tools button[aria-pressed=true]{background:var(--blue);border-color:var(--blue);color:var(--paper)}
.tools .theme{margin-left:auto}
.trial{border-bottom:1px solid var(--line);padding:14px 0 16px}
.head{display:flex;flex-wrap:wrap;gap:4px 14px;align-items:baseline}
.head .asked{font-size:1.1rem;font-weight:600}
.verdict{font-weight:600;border-radius:4px;padding:0 8px;border:1px solid currentColor}
.good{color:var(--green)}
.bad{color:var(--red)}
.chips{display:flex;flex-wrap:wrap;gap:6px;margin:8px 0 0;padding:0;list-style:none}
.chips li{background:var(--card);border:1px solid var(--line);border-radius:4px;padding:0 8px}
.chips li.right{border-color:var(--green);color:var(--green);font-weight:600}
.strip{display:flex;gap:6px;overflow-x:auto;margin:10px 0 0;padding:0 0 4px}
.strip figure{margin:0;flex:0 0 124px}
.strip img{width:124px;height:93px;object-fit:cover;display:block;border-radius:4px;background:var(--card)}
.strip figcaption{font-size:12px;color:var(--soft)}
blockquote{margin:10px 0 0;padding:0 0 0 10px;border-left:3px solid var(--line);overflow-wrap:anywhere}
dl{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 0}
dl div{display:flex;gap:6px}
dt{color:var(--soft)}
dd{margin:0}
details{margin:10px 0 0}
summary{cursor:pointer;color:var(--blue);padding:4px 0}
details svg,.plot svg{display:block;width:100%;min-width:560px;height:auto}
.plot{display:block}
.plot svg{max-width:760px}
.none{padding:24px 0;color:var(--soft)}
[hidden]{display:none!important}
@media(max-width:640px){td.bar{display:none}main{padding:14px 12px 40px}h1{font-size:1.25rem}}
@media print{.tools{display:none}}
"""
)
FILTER_SCRIPT = """
const buttons=[...document.querySelectorAll('[data-show]')],rows=[...document.querySelectorAll('.trial')];
function show(kind){
  let left=0;
  for(const row of rows){
    const fits=kind==='all'||(kind==='failures'?row.dataset.success==='no':row.dataset.link===kind);
    row.hidden=!fits;left+=fits;
  }
  for(const b of buttons)b.setAttribute('aria-pressed',b.dataset.show===kind);
  document.querySelector('.none').hidden=left>0;
}
for(const b of buttons)b.addEventListener('click',()=>{
  history.replaceState(null,'','#'+b.dataset.show);show(b.dataset.show);
});
const asked=decodeURIComponent(location.hash.slice(1));
show(buttons.some(b=>b.dataset.show===asked)?asked:'all');
"""
THEME_SCRIPT = """
document.querySelector('.theme').addEventListener('click',()=>{
  const root=document.documentElement,dark=matchMedia('(prefers-color-scheme: dark)').matches;
  const now=root.dataset.theme||(dark?'dark':'light');root.dataset.theme=now==='dark'?'light':'dark';
});
"""
