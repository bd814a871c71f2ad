# For a GPU: docker build --build-arg TORCH=cu126 -t portfolio-env .
#            docker run --gpus all portfolio-env python train.py --device cuda
FROM python:3.12-slim

# Build of torch: "cpu", or one for a version of CUDA, e.g. "cu126"; its libraries come with torch.
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl

# A folder that WORKDIR makes is of root, and runs are written into it.
RUN useradd --create-home agent && install -d -o agent /home/agent/portfolio-env
WORKDIR /home/agent/portfolio-env
COPY --chown=agent . .
RUN version="$(grep '^torch==' constraints.txt)" \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX/$TORCH" "$version" \
    && pip install --no-cache-dir -c constraints.txt -e '.[rl,contrib,data,yahoo,baselines,evaluation,search]'
USER agent
# Machine code is compiled once, here.
RUN python -c 'import portfolio_env as pe; from baselines import make_baseline as make; \
    from portfolio_env.live import AccountOptions as Account, Predictor, orders_at; \
    env = pe.PortfolioEnv("synthetic"); env.reset(seed=0); env.step(env.action_space.sample()); \
    env = pe.PortfolioEnv("synthetic", action="weights"); \
    orders_at(Predictor(make("equal_weight", env.market), env), Account(capital=10000))'
CMD ["python", "examples/demo.py"]
